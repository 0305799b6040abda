"""The charts of a report as inline SVG: intervals side by side, likeness against prompt, both against steps."""

from collections.abc import Sequence
from dataclasses import dataclass

from .axes import LETTER, WIDTH, Scale, chart, horizontal_axis, line, scale_of, text, vertical_axis
from .html import Html, element, joined
from .marks import colour_class, mark, methods
from .results import Figure, Results, Variant
from .scores import Score, number

LEFT, INDENT, RIGHT, TOP = 46, 14, WIDTH - 14, 34
LINE = 16  # from one line of a label to the next
DODGE = 4  # pixels between methods of the same step count


@dataclass(frozen=True)
class Row:
    """One line of an interval chart; the label may have several lines."""

    label: tuple[str, ...]
    mean: float
    low: float | None
    high: float | None
    colour: str = "plain"
    shape: int = 0


def interval_chart(
    name: str, title: str, axis: str, rows: Sequence[Row], references: Sequence[tuple[float, str]] = ()
) -> Html:
    """A point with its interval in every row, under its label; `references` are upright lines with a name."""
    top, height = TOP + 6, 24 + LINE * max(len(row.label) for row in rows)
    bottom = top + height * len(rows)
    ends = [end for row in rows for end in (row.mean, row.low, row.high) if end is not None]
    scale = scale_of([*ends, *(value for value, _ in references)], INDENT, RIGHT)
    parts = horizontal_axis(scale, top, bottom, axis)
    free = 0.0
    for value, label in sorted(references):
        x, half = scale(value), len(label) * LETTER / 2
        middle = min(max(x, half + 2), WIDTH - half - 2)
        above = LINE if middle - half < free else 0  # two names side by side, or one over the other
        free = middle + half + LETTER
        parts.append(line(x, top - 6 - above, x, bottom, "reference"))
        parts.append(text(middle, top - 10 - above, label, "middle", "faint"))
    for index, row in enumerate(rows):
        parts += _interval(row, scale, top + index * height, height)
    return chart(name, title, "; ".join(map(_said, rows)), bottom + 40, *parts)


def _interval(row: Row, scale: Scale, top: float, height: float) -> list[Html]:
    """A row's label on a ground of its own, so that no upright line crosses it, and its point below."""
    y = top + height - 14
    error = [] if row.low is None or row.high is None else [_error(scale(row.low), y, scale(row.high), y)]
    words = [shortened(words) for words in row.label]
    ground = {"x": INDENT - 4, "y": top, "width": max(map(len, words)) * LETTER + 8, "height": LINE * len(words)}
    labels = [text(INDENT, top + LINE * number - 3, part) for number, part in enumerate(words, 1)]
    shape = mark(row.shape, scale(row.mean), y)
    return [element("rect", {"class": "ground", **ground}), *labels, element("g", {"class": row.colour}, *error, shape)]


def shortened(label: str) -> str:
    """As much of a label as fits the width of a chart."""
    most = int((RIGHT - INDENT) / LETTER)
    return label if len(label) <= most else label[: most - 1] + "…"


def scatter(results: Results, across: Score, up: Score) -> Html | None:
    """Every variant by two scores, with both intervals; None where no variant has both."""
    both = [(variant, variant.figure(across.key), variant.figure(up.key)) for variant in results.variants]
    points = [(variant, x, y) for variant, x, y in both if x and y]
    if not points:
        return None
    bottom = 300
    x_scale = scale_of([end for _, x, _ in points for end in _ends(x)], LEFT, RIGHT)
    y_scale = scale_of([end for _, _, y in points for end in _ends(y)], bottom, TOP)
    parts = horizontal_axis(x_scale, TOP, bottom, f"{across.title} (fits the prompt better \N{RIGHTWARDS ARROW})")
    parts += vertical_axis(y_scale, LEFT, RIGHT, f"{up.title} (more like the person \N{UPWARDS ARROW})")
    places = [(x_scale(x.mean), y_scale(y.mean)) for _, x, y in points]
    for (variant, x, y), (px, py) in zip(points, places, strict=True):
        bars = [_error(x_scale(x.low), py, x_scale(x.high), py)] if x.low is not None and x.high is not None else []
        if y.low is not None and y.high is not None:
            bars.append(_error(px, y_scale(y.low), px, y_scale(y.high)))
        shape = mark(methods(results).index(variant.method), px, py)
        parts.append(element("g", {"class": colour_class(results, variant)}, *bars, shape))
    numbers = [str(results.variants.index(variant) + 1) for variant, _, _ in points]
    parts += [text(x, y, words, "middle", "halo") for words, (x, y) in zip(numbers, label_places(places), strict=True)]
    said = "; ".join(
        f"{variant.label}: {across.title} {number(x.mean, across.digits)}, {up.title} {number(y.mean, up.digits)}"
        for variant, x, y in points
    )
    return chart("scatter", f"{up.title} against {across.title}", said, bottom + 42, *parts)


def label_places(places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """A spot beside each point that is farthest from all points and from the labels before it."""
    spots: list[tuple[float, float]] = []
    around = [(9, -6), (-9, -6), (9, 14), (-9, 14), (0, -10), (0, 19), (14, 4), (-14, 4)]
    for x, y in places:
        taken = [(px, py + 4) for px, py in places if (px, py) != (x, y)] + spots
        options = [(x + dx, y + dy) for dx, dy in around]
        room = [min([(ox - tx) ** 2 + (oy - ty) ** 2 for tx, ty in taken], default=0) for ox, oy in options]
        spots.append(options[max(range(len(options)), key=lambda i: min(room[i], 400))])
    return spots


def against_steps(results: Results, score: Score) -> Html | None:
    """A score against the number of training steps, one line a method and rank; None without two step counts."""
    lines: dict[tuple[str, int | None], list[tuple[int, Variant, Figure]]] = {}
    for variant in results.variants:
        figure = variant.figure(score.key)
        if figure and variant.steps is not None:
            lines.setdefault((variant.method, variant.rank), []).append((variant.steps, variant, figure))
    counts = {steps for points in lines.values() for steps, _, _ in points}
    if len(counts) < 2:
        return None
    bottom = 240
    x_scale = scale_of(counts, LEFT, RIGHT)
    figures = [figure for points in lines.values() for _, _, figure in points]
    y_scale = scale_of([end for figure in figures for end in _ends(figure)], bottom, TOP)
    parts = horizontal_axis(x_scale, TOP, bottom, "training steps", sorted(counts))
    parts += vertical_axis(y_scale, LEFT, RIGHT, score.title)
    for index, points in enumerate(lines.values()):
        aside = (index - (len(lines) - 1) / 2) * DODGE
        parts.append(_line(results, sorted(points, key=lambda point: point[0]), x_scale, y_scale, aside))
    said = "; ".join(
        f"{variant.label}: {number(figure.mean, score.digits)}"
        for points in lines.values()
        for _, variant, figure in points
    )
    return chart(f"steps-{score.key}", f"{score.title} against training steps", said, bottom + 42, *parts)


def _line(
    results: Results, points: Sequence[tuple[int, Variant, Figure]], x_scale: Scale, y_scale: Scale, aside: float
) -> Html:
    """The line of one method and rank with its marks and error bars, a little aside so that no bar hides another."""
    places = [(x_scale(steps) + aside, y_scale(figure.mean)) for steps, _, figure in points]
    path = element("polyline", {"class": "path", "points": " ".join(f"{x:.1f},{y:.1f}" for x, y in places)})
    variant = points[0][1]
    index = methods(results).index(variant.method)
    bars = [
        _error(x, y_scale(figure.low), x, y_scale(figure.high))
        for (x, _), (_, _, figure) in zip(places, points, strict=True)
        if figure.low is not None and figure.high is not None
    ]
    return element("g", {"class": colour_class(results, variant)}, path, *bars, *(mark(index, x, y) for x, y in places))


def _error(x1: float, y1: float, x2: float, y2: float) -> Html:
    """An error bar with its caps."""
    level = y1 == y2
    ends = [(x, y) for x, y in ((x1, y1), (x2, y2))]
    caps = [line(x, y - 4, x, y + 4, "error") if level else line(x - 4, y, x + 4, y, "error") for x, y in ends]
    return joined([line(x1, y1, x2, y2, "error"), *caps])


def _ends(figure: Figure) -> list[float]:
    return [end for end in (figure.mean, figure.low, figure.high) if end is not None]


def _said(row: Row) -> str:
    between = "" if row.low is None or row.high is None else f", {number(row.low, 3)} to {number(row.high, 3)}"
    return f"{' '.join(row.label)}: {number(row.mean, 3)}{between}"
