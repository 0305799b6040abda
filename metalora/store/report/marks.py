"""Colour and shape of a method, the same in every chart and table: neither alone has to be told apart."""

import math

from .html import Html, element
from .results import Results, Variant

COLOURS = 8  # .m0 to .m7 in the style sheet
SHAPES = ("circle", "square", "diamond", "triangle")


def methods(results: Results) -> list[str]:
    """In the order of their first variant."""
    return list(dict.fromkeys(variant.method for variant in results.variants))


def colour_class(results: Results, variant: Variant) -> str:
    """The class of the style sheet that holds the method's colour."""
    return f"m{methods(results).index(variant.method) % COLOURS}"


def mark(index: int, x: float, y: float, size: float = 5) -> Html:
    """The shape of the method with this index, filled with the current colour."""
    shape = SHAPES[index % len(SHAPES)]
    if shape == "circle":
        return element("circle", {"class": "mark", "cx": _r(x), "cy": _r(y), "r": size})
    corners = {"square": (4, 45), "diamond": (4, 0), "triangle": (3, -90)}[shape]
    count, turn = corners
    reach = size * 1.25
    points = [
        f"{_r(x + reach * math.cos(math.radians(turn + 360 * k / count)))},"
        f"{_r(y + reach * math.sin(math.radians(turn + 360 * k / count)))}"
        for k in range(count)
    ]
    return element("polygon", {"class": "mark", "points": " ".join(points)})


def key(results: Results, variant: Variant) -> Html:
    """The mark on its own, for a table or a legend."""
    picture = mark(methods(results).index(variant.method), 8, 8)
    attributes = {"class": f"key {colour_class(results, variant)}", "viewBox": "0 0 16 16", "aria-hidden": "true"}
    return element("svg", attributes, picture)


def named(results: Results, variant: Variant) -> Html:
    """Number, mark and label of a variant: the number is what charts call it."""
    index = next(i for i, other in enumerate(results.variants, 1) if other.id == variant.id)
    return element("span", {"class": "name"}, key(results, variant), f"{index}. {variant.label}")


def _r(value: float) -> str:
    return f"{value:.1f}"
