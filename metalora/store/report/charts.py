"""The charts of a report as inline SVG: intervals side by side, likeness against prompt, both against steps."""

import io
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from typing import Any

import numpy as np
from markupsafe import Markup

from .pictures import inline_svg, printable
from .results import Figure, Results, Variant
from .scores import CLIP_T, R_FACESIM, Score, interval, number, ranked, turned

# A method has a colour and a shape, the same in charts and tables: neither alone has to be told apart. The colour-blind
# tell these colours apart, and letters in them are dark enough for white paper; .m0 to .m4 in the style sheet.
COLOURS = ("#0069b4", "#c84400", "#008060", "#22242a", "#8a3ffc")
SHAPES, GLYPHS = "osD^", "●■◆▲"
INK, FAINT, RULE = "#22242a", "#5f636d", "#d9dad6"
WIDTH, SIDE, LEFT, BOTTOM, TOP = 420, 14, 48, 40, 30  # units of the drawings, a little less than a pixel each
SIZE, LINE, DODGE = 10.5, 16, 5  # of letters; from line to line; between lines that share their step counts
LONGEST = 190  # of a name beside a point
PAIRS = 12
STYLE = {
    "svg.fonttype": "none",  # letters stay letters: small, searchable, in the page's own font
    "svg.hashsalt": "metalora",  # the same drawing has the same bytes
    "text.parse_math": False,  # a label may hold a dollar
    "font.size": SIZE,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "axes.formatter.useoffset": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    **{f"axes.spines.{side}": False for side in ("left", "right", "top", "bottom")},
}
AROUND = ((1, 0), (-1, 0), (0, 1), (0, -1), (0.75, 0.75), (-0.75, 0.75), (0.75, -0.75), (-0.75, -0.75))
STEPS = "training steps"
Box = tuple[float, float, float, float]


def methods(results: Results) -> list[str]:
    """In the order of their first variant."""
    return list(dict.fromkeys(variant.method for variant in results.variants))


def look(results: Results, variant: Variant) -> tuple[str, str]:
    """Colour and shape of a variant's method."""
    index = methods(results).index(variant.method)
    return COLOURS[index % len(COLOURS)], SHAPES[index % len(SHAPES)]


def chart(name: str, title: str, said: str, height: float, bounds: Box, draw: Callable[[Any], None]) -> Markup:
    """What `draw` puts on axes that fill `bounds` of a drawing; `said` is for those who cannot see it."""
    from matplotlib import style  # imported late: not every job draws
    from matplotlib.figure import Figure as Drawing

    x0, y0, x1, y1 = bounds
    with style.context(["default", STYLE]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the browser has a font for it
        drawing = Drawing(figsize=(WIDTH / 72, height / 72), dpi=72)
        draw(drawing.add_axes((x0 / WIDTH, y0 / height, (x1 - x0) / WIDTH, (y1 - y0) / height)))
        data = io.BytesIO()
        drawing.savefig(data, format="svg", transparent=True, metadata={"Date": None})
    return inline_svg(data.getvalue(), name, title, said)


def width_of(words: str) -> float:
    """In units of the drawings, in matplotlib's own font, which is wider than most."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextToPath

    return TextToPath().get_text_width_height_descent(words, FontProperties(size=SIZE), False)[0]


def shortened(words: str, most: float) -> str:
    """As much of a label as fits."""
    words = printable(words)
    while (wide := width_of(words)) > most:
        words = words[: min(len(words) - 2, int(len(words) * most / wide))] + "…"
    return words


@dataclass(frozen=True)
class Row:
    """One line of an interval chart; the label may have several lines."""

    label: tuple[str, ...]
    figure: Figure
    look: tuple[str, str] = (INK, "o")


def interval_chart(
    name: str, title: str, axis: str, rows: Sequence[Row], references: Sequence[tuple[float, str]] = ()
) -> Markup:
    """A point with its interval in every row, under its label; `references` are upright lines with a name."""
    each = 26 + LINE * max(len(row.label) for row in rows)
    tall, levels = each * len(rows), LINE * len(references)
    bounds = (SIDE, BOTTOM, WIDTH - SIDE, BOTTOM + tall)

    def draw(axes: Any) -> None:
        axes.set(ylim=(tall, 0), yticks=[], xlabel=axis)
        axes.set_xlim(
            *limits([*(end for row in rows for end in ends(row.figure)), *(value for value, _ in references)])
        )
        taken = 0.0
        for value, words in sorted(references):
            half, x = width_of(words) / 2, axes.transData.transform((value, 0))[0]
            middle = min(max(x, half + 2), WIDTH - half - 2)
            above = 6 + (LINE if middle - half < taken else 0)  # two names side by side, or one over the other
            taken = middle + half + 8
            axes.plot([value, value], [tall, 2 - above], color=FAINT, linewidth=1.2, dashes=(4, 3), clip_on=False)
            _words(axes, middle, bounds[3] + above, words, color=FAINT, horizontalalignment="center")
        for index, row in enumerate(rows):
            y = (index + 1) * each - 13
            _point(axes, row.figure, Figure(y, None, None, 0), row.look)
            for line, words in enumerate(row.label):
                y = bounds[3] - index * each - LINE * (line + 1)
                ground = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}  # no upright line crosses the words
                _words(axes, SIDE, y, shortened(words, WIDTH - 2 * SIDE), bbox=ground)

    said = "; ".join(f"{' '.join(row.label)}: {number(row.figure.mean, 3)}, {interval(row.figure, 3)}" for row in rows)
    return chart(name, title, said, BOTTOM + tall + levels + 12, bounds, draw)


def likeness(results: Results) -> Markup | None:
    """Every variant between another person and the same person."""
    rows = []
    for variant in ranked(results, R_FACESIM.key):
        figure = variant.figure(R_FACESIM.key)
        assert figure is not None
        label = f"{results.variants.index(variant) + 1}. {variant.label}"
        rows.append(Row((label,), figure, look(results, variant)))
    faces = results.faces
    both = [(faces.impostor_mean, "different people"), (faces.genuine_mean, "same person, real photos")]
    references = [(value, words) for value, words in both if value is not None]
    if not rows:
        return None
    return interval_chart("likeness", "R-FaceSim of every variant", "R-FaceSim", rows, references)


def difference_chart(results: Results) -> Markup | None:
    """R-FaceSim by pairs, the largest first; with many variants, only pairs with the first."""
    labels = {variant.id: variant.label for variant in results.variants}
    pairs = [found for found in results.comparisons if (found.score, found.misses) == (R_FACESIM.key, "left out")]
    shown = [found if found.mean >= 0 else turned(found) for found in pairs]
    if len(shown) > PAIRS:
        first = ranked(results, R_FACESIM.key)[0].id
        shown = [found for found in shown if first in (found.one, found.other)][:PAIRS]
    rows = [
        Row((labels[one.one], f"minus {labels[one.other]}"), Figure(one.mean, one.low, one.high, one.count))
        for one in sorted(shown, key=lambda one: -one.mean)
    ]
    title, axis = "Paired differences of R-FaceSim", "difference of R-FaceSim"
    return interval_chart("differences", title, axis, rows, [(0.0, "no difference")]) if rows else None


Point = tuple[Variant, Figure, Figure]  # where it is across and up
Words = tuple[float, float, str, str]  # beside which place, what, and in which colour


def scatter(results: Results) -> Markup | None:
    """R-FaceSim against CLIP-T, a method's step counts joined to a line; None where no variant has both."""
    both = [(variant, variant.figure(CLIP_T.key), variant.figure(R_FACESIM.key)) for variant in results.variants]
    points = [(variant, x, y) for variant, x, y in both if x and y]
    return _lines(results, "scatter", f"{CLIP_T.title} (fits the prompt better →)", R_FACESIM, points, 350)


def against_steps(results: Results, score: Score) -> Markup | None:
    """A score against the number of training steps, one line a method and rank; None without two step counts."""
    both = [(variant, variant.steps, variant.figure(score.key)) for variant in results.variants]
    points = [(variant, Figure(steps, None, None, 0), y) for variant, steps, y in both if steps is not None and y]
    if len({x.mean for _, x, _ in points}) < 2:
        return None
    return _lines(results, f"steps-{score.key}", STEPS, score, points, 270)


def line_name(results: Results, variant: Variant) -> str:
    """The label without its steps, and without a rank that all share: one line joins what differs in steps alone."""
    name = variant.label.replace(f", {variant.steps} steps", "")
    one_rank = len({other.rank for other in results.variants} - {None}) == 1
    return name.replace(f", rank {variant.rank}", "") if one_rank else name


def _lines(
    results: Results, name: str, across: str, score: Score, points: Sequence[Point], height: float
) -> Markup | None:
    """Points with intervals in both directions, joined along their steps; each line has its name at its end."""
    lines: dict[tuple[str, str], list[Point]] = {}
    for point in sorted(points, key=lambda point: point[0].steps or 0):
        lines.setdefault((point[0].method, line_name(results, point[0])), []).append(point)
    bounds = (LEFT, BOTTOM, WIDTH - SIDE, height - TOP)

    def draw(axes: Any) -> None:
        axes.set_xlim(*limits([end for _, x, _ in points for end in ends(x)]))
        axes.set_ylim(*limits([end for _, _, y in points for end in ends(y)]))
        axes.set_xlabel(across)
        axes.locator_params(nbins=7)
        title = f"{score.title} (more like the person ↑)" if score is R_FACESIM else score.title
        _words(axes, 4, height - TOP + 12, title)
        beside: list[Words] = []
        taken: list[Box] = []
        for index, ((_, called), line) in enumerate(lines.items()):
            aside = (index - (len(lines) - 1) / 2) * DODGE if across == STEPS else 0  # no bar hides another
            boxes, colour = _line(axes, line, look(results, line[0][0]), aside)
            taken += boxes
            beside += _beside(line, boxes, shortened(called, LONGEST), colour, steps=across != STEPS)
        for place, (_, _, words, colour) in zip(label_places(beside, taken, bounds), beside, strict=True):
            if place:
                _words(axes, *place, words, color=colour)

    said = [f"{v.label}: {across} {number(x.mean, 2)}, {score.title} {number(y.mean, 3)}" for v, x, y in points]
    return chart(name, f"{score.title} against {across}", "; ".join(said), height, bounds, draw) if points else None


def _line(axes: Any, line: Sequence[Point], own: tuple[str, str], aside: float) -> tuple[list[Box], str]:
    """The line of one method, `aside` to the right; the boxes that it fills, those of its marks first."""
    places = axes.transData.transform([(x.mean, y.mean) for _, x, y in line]) + np.array([aside, 0])
    at = axes.transData.inverted().transform(places)
    axes.plot(*at.T, color=own[0], linewidth=1.6)
    boxes = [_point(axes, replace(x, mean=there[0]), y, own) for (_, x, y), there in zip(line, at, strict=True)]
    for one, other in pairwise(places):
        steps = np.linspace(one, other, 2 + int(np.abs(other - one).max() / 4))
        boxes.append([(x - 2, y - 2, x + 2, y + 2) for x, y in steps])
    return [*(each[0] for each in boxes[: len(line)]), *(box for each in boxes for box in each)], own[0]


def _beside(line: Sequence[Point], marks: Sequence[Box], name: str, colour: str, steps: bool) -> list[Words]:
    """What stands beside the points of a line: its name at the last one and, if wanted, the steps at each."""
    found = []
    for index, (variant, _, _) in enumerate(line):
        words = [name] if index == len(line) - 1 else []
        if steps and variant.steps is not None:
            words.append(f"{variant.steps} steps" if words else f"{variant.steps}")
        left, low, right, high = marks[index]
        if words:
            found.append(((left + right) / 2, (low + high) / 2, ", ".join(words), colour))
    return found


def label_places(beside: Sequence[Words], taken: Iterable[Box], bounds: Box) -> list[tuple[float, float] | None]:
    """Where the words of each point hide least; long ones first, so that it is numbers that find no room, if any."""
    drawn, written = list(taken), dict[int, Box]()
    for index in sorted(range(len(beside)), key=lambda index: -len(beside[index][2])):
        x, y, words, _ = beside[index]
        wide, free = width_of(words), []
        for far, (across, up) in product((7, 13, 20, 30, 42, 56), AROUND):
            left, low = x + across * far - wide * (1 - across) / 2, y + up * far - SIZE * (1 - up) / 2
            box = (left, low, left + wide, low + SIZE)
            inside = bounds[0] <= left and box[2] <= WIDTH and bounds[1] <= low and box[3] <= bounds[3]
            if inside and not any(_shared(box, other, 3) for other in written.values()):
                free.append((5 * sum(_shared(box, other, 1) for other in drawn) + 2 * far, box))
        if free:
            written[index] = min(free)[1]
    return [written[index][:2] if index in written else None for index in range(len(beside))]


def _shared(one: Box, other: Box, room: float) -> float:
    """The area in which two boxes with some room around them lie on each other."""
    wide = min(one[2], other[2]) - max(one[0], other[0]) + room
    tall = min(one[3], other[3]) - max(one[1], other[1]) + room
    return wide * tall if wide > 0 and tall > 0 else 0.0


def _point(axes: Any, x: Figure, y: Figure, own: tuple[str, str]) -> list[Box]:
    """A mark with its intervals, and the boxes that they fill, the mark's first."""
    px, py = axes.transData.transform((x.mean, y.mean))
    boxes = [(px - 5, py - 5, px + 5, py + 5)]
    (left, right), (low, high) = ((min(ends(one)), max(ends(one))) for one in (x, y))
    for across, up in (((left, right), (y.mean, y.mean)), ((x.mean, x.mean), (low, high))):
        axes.plot(across, up, color=own[0], linewidth=1.3, alpha=0.55)
        (x0, y0), (x1, y1) = axes.transData.transform([*zip(across, up, strict=True)])
        boxes.append((x0 - 1, y0 - 1, x1 + 1, y1 + 1))
    axes.plot(x.mean, y.mean, color=own[0], marker=own[1], markersize=7, markeredgecolor="white", markeredgewidth=0.8)
    return boxes


def _words(axes: Any, x: float, y: float, words: str, **more: Any) -> None:
    """Words at a place of the drawing, in its units from the lower left."""
    axes.annotate(words, (x, y), xycoords="figure pixels", annotation_clip=False, **more)


def limits(values: Sequence[float]) -> tuple[float, float]:
    """Of an axis that holds all values with some room at both ends."""
    low, high = min(values), max(values)
    room = (high - low) * 0.08 or max(abs(high) * 0.05, 0.05)
    return low - room, high + room


def ends(figure: Figure) -> list[float]:
    """All that a point with its interval reaches."""
    return [end for end in (figure.mean, figure.low, figure.high) if end is not None]
