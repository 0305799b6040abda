"""The charts of a report, drawn by matplotlib: intervals side by side, and likeness against prompt."""

import base64
import io
import textwrap
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from .results import Figure, Results, Variant
from .scores import CLIP_T, R_FACESIM, interval, number, ranked, turned

# A method has a colour and a shape, the same in charts and tables: neither alone has to be told apart. The colour-blind
# tell these colours apart, and letters in them are dark enough for white paper; .m0 to .m4 in the style sheet.
COLOURS = ("#0069b4", "#c84400", "#008060", "#22242a", "#8a3ffc")
SHAPES, GLYPHS = "osD^", "\u25cf\u25a0\u25c6\u25b2"  # circle, square, diamond, triangle
INK, FAINT = "#22242a", "#5f636d"
LABEL_WIDTH = 34  # letters of a line
PAIRS = 12
STYLE = {
    "svg.fonttype": "none",  # letters stay letters: small, and in the browser's own font
    "svg.hashsalt": "metalora",  # the same drawing has the same bytes
    "text.parse_math": False,  # a label may hold a dollar
    "font.size": 10,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


class Chart(NamedTuple):
    """A picture inside the page, and what it shows in words for those who cannot see it."""

    uri: str
    said: str


@dataclass(frozen=True)
class Row:
    """One line of an interval chart."""

    label: str
    figure: Figure
    look: tuple[str, str] = (INK, "o")


def methods(results: Results) -> list[str]:
    """In the order of their first variant."""
    return list(dict.fromkeys(variant.method for variant in results.variants))


def look(results: Results, variant: Variant) -> tuple[str, str]:
    """Colour and shape of a variant's method."""
    index = methods(results).index(variant.method)
    return COLOURS[index % len(COLOURS)], SHAPES[index % len(SHAPES)]


def drawn(height: float, said: str, draw: Callable[[Any], None]) -> Chart:
    """What `draw` puts on axes, `height` inches tall."""
    from matplotlib import style  # imported late: not every job draws
    from matplotlib.figure import Figure as Drawing

    with style.context(["default", STYLE]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the browser has a font for it
        drawing = Drawing(figsize=(6.5, height), layout="constrained")
        draw(drawing.subplots())
        data = io.BytesIO()
        drawing.savefig(data, format="svg", metadata={"Date": None})
    return Chart("data:image/svg+xml;base64," + base64.b64encode(data.getvalue()).decode(), printable(said))


def interval_chart(axis: str, rows: Sequence[Row], references: Sequence[tuple[float, str]] = ()) -> Chart:
    """A point with its interval in every row; `references` are upright lines with a name."""

    def draw(axes: Any) -> None:
        for (value, words), dashes in zip(references, ("--", ":"), strict=False):
            axes.axvline(value, color=FAINT, linestyle=dashes, linewidth=1.2, label=f"{words}: {number(value, 3)}")
        for place, row in enumerate(rows):
            _point(axes, row.figure, Figure(place, None, None, 0), row.look)
        axes.set_yticks(range(len(rows)), [_wrapped(row.label) for row in rows])
        axes.set(xlabel=axis, ylim=(len(rows) - 0.5, -0.5))
        if references:
            axes.figure.legend(loc="outside upper right")

    said = "; ".join(f"{row.label}: {number(row.figure.mean, 3)}, {interval(row.figure, 3)}" for row in rows)
    return drawn(1.2 + 0.55 * len(rows), f"{axis}. {said}", draw)


def likeness(results: Results) -> Chart | None:
    """Every variant between another person and the same person."""
    rows = [
        Row(f"{results.variants.index(variant) + 1}. {variant.label}", figure, look(results, variant))
        for variant in ranked(results, R_FACESIM.key)
        if (figure := variant.figure(R_FACESIM.key))
    ]
    faces = results.faces
    both = [(faces.impostor_mean, "different people"), (faces.genuine_mean, "same person, real photos")]
    references = [(value, words) for value, words in both if value is not None]
    return interval_chart(R_FACESIM.title, rows, references) if rows else None


def difference_chart(results: Results) -> Chart | None:
    """R-FaceSim by pairs, the largest first; with many variants, only pairs with the first."""
    labels = {variant.id: variant.label for variant in results.variants}
    pairs = [found for found in results.comparisons if (found.score, found.misses) == (R_FACESIM.key, "left out")]
    shown = [found if found.mean >= 0 else turned(found) for found in pairs]
    if len(shown) > PAIRS:
        first = ranked(results, R_FACESIM.key)[0].id
        shown = [found for found in shown if first in (found.one, found.other)][:PAIRS]
    rows = [
        Row(f"{labels[one.one]} minus {labels[one.other]}", Figure(one.mean, one.low, one.high, one.count))
        for one in sorted(shown, key=lambda one: -one.mean)
    ]
    return interval_chart("paired difference of R-FaceSim", rows, [(0.0, "no difference")]) if rows else None


def scatter(results: Results) -> Chart | None:
    """R-FaceSim against CLIP-T, a method's step counts joined to a line; None where no variant has both."""
    both = [(variant, variant.figure(CLIP_T.key), variant.figure(R_FACESIM.key)) for variant in results.variants]
    points = [(variant, x, y) for variant, x, y in both if x and y]
    if not points:
        return None
    lines: dict[str, list[tuple[Variant, Figure, Figure]]] = {}
    for point in sorted(points, key=lambda point: point[0].steps or 0):
        lines.setdefault(line_name(results, point[0]), []).append(point)

    def draw(axes: Any) -> None:
        for name, line in lines.items():
            colour, shape = look(results, line[0][0])
            axes.plot([x.mean for _, x, _ in line], [y.mean for _, _, y in line], color=colour, marker=shape)
            axes.plot([], [], color=colour, marker=shape, label=_wrapped(name))
            for variant, x, y in line:
                _point(axes, x, y, (colour, shape))
                if variant.steps is not None:
                    place = {"xytext": (6, 5), "textcoords": "offset points", "color": colour}
                    axes.annotate(str(variant.steps), (x.mean, y.mean), **place)
        axes.set(
            xlabel=f"{CLIP_T.title} (right: fits the prompt better)", ylabel="R-FaceSim (up: more like the person)"
        )
        axes.figure.legend(loc="outside lower center", ncols=2)

    said = [f"{v.label}: {CLIP_T.title} {number(x.mean, 2)}, R-FaceSim {number(y.mean, 3)}" for v, x, y in points]
    return drawn(4.5 + 0.15 * len(lines), f"R-FaceSim against CLIP-T. {'; '.join(said)}", draw)


def line_name(results: Results, variant: Variant) -> str:
    """The label without its steps, and without a rank that all share: one line joins what differs in steps alone."""
    name = variant.label.replace(f", {variant.steps} steps", "")
    one_rank = len({other.rank for other in results.variants} - {None}) == 1
    return name.replace(f", rank {variant.rank}", "") if one_rank else name


def _point(axes: Any, x: Figure, y: Figure, own: tuple[str, str]) -> None:
    """A mark with its intervals."""
    bars = {f"{axis}err": _bar(figure) for axis, figure in (("x", x), ("y", y))}
    axes.errorbar(x.mean, y.mean, **bars, color=own[0], marker=own[1], markersize=7, elinewidth=1.3)


def _bar(figure: Figure) -> list[list[float]] | None:
    if figure.low is None or figure.high is None:
        return None
    return [[max(0.0, figure.mean - figure.low)], [max(0.0, figure.high - figure.mean)]]


def _wrapped(words: str) -> str:
    return textwrap.fill(printable(words), LABEL_WIDTH)


def printable(words: str) -> str:
    """Without the characters that XML cannot hold."""
    return "".join(letter if letter.isprintable() else " " for letter in words)
