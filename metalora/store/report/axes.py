"""What every chart has: a frame, a scale with round numbers, and a text that says what is drawn."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .html import Html, element

WIDTH = 400  # the page of a phone, nearly: its text is then as large as the page's
LETTER = 7.8  # mean width of a letter at the charts' font size, in the widest of the usual fonts


@dataclass(frozen=True)
class Scale:
    """Numbers low..high on pixels start..end (which may run backwards)."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, most: int = 6) -> list[float]:
        """At most so many round numbers on the scale, evenly spaced."""
        rough = (self.high - self.low) / most
        power = 10 ** math.floor(math.log10(rough))
        step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        return [i * step for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


def scale_of(values: Iterable[float], start: float, end: float, margin: float = 0.08) -> Scale:
    """A scale that holds all values with some room at both ends."""
    found = list(values)
    low, high = min(found), max(found)
    room = (high - low) * margin or max(abs(high) * 0.05, 0.05)
    return Scale(low - room, high + room, start, end)


def tick_text(value: float, scale: Scale) -> str:
    """With as many digits as the spacing of the ticks needs."""
    ticks = scale.ticks()
    step = ticks[1] - ticks[0] if len(ticks) > 1 else 1
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")


def chart(name: str, title: str, describes: str, height: float, *parts: str) -> Html:
    """An SVG with a title and a description for those who cannot see it."""
    return element(
        "svg",
        {
            "class": "chart",
            "viewBox": f"0 0 {WIDTH} {height:g}",
            "role": "img",
            "aria-labelledby": f"{name}-title {name}-text",
        },
        element("title", {"id": f"{name}-title"}, title),
        element("desc", {"id": f"{name}-text"}, describes),
        *parts,
    )


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Html:
    """A straight line; `kind` is its class in the style sheet."""
    places = {"x1": x1, "y1": y1, "x2": x2, "y2": y2}
    return element("line", {"class": kind, **{key: f"{value:.1f}" for key, value in places.items()}})


def text(x: float, y: float, words: str, anchor: str = "start", kind: str = "") -> Html:
    """Words at a place."""
    more = {"class": kind} if kind else {}
    return element("text", {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor, **more}, words)


def horizontal_axis(
    scale: Scale, top: float, bottom: float, title: str, ticks: Sequence[float] | None = None
) -> list[Html]:
    """Grid lines from top to bottom with numbers below, and what they count; round numbers, or the given `ticks`."""
    parts, free = [], float("-inf")
    for tick in scale.ticks() if ticks is None else ticks:
        x, words = scale(tick), tick_text(tick, scale) if ticks is None else f"{tick:g}"
        parts.append(line(x, top, x, bottom, "grid"))
        if x - len(words) * LETTER / 2 > free:
            parts.append(text(x, bottom + 15, words, "middle"))
            free = x + len(words) * LETTER / 2 + 4
    return [*parts, text((scale.start + scale.end) / 2, bottom + 33, title, "middle")]


def vertical_axis(scale: Scale, left: float, right: float, title: str) -> list[Html]:
    """Grid lines from left to right with numbers beside, and what they count above."""
    parts = []
    for tick in scale.ticks():
        y = scale(tick)
        parts += [line(left, y, right, y, "grid"), text(left - 6, y + 4, tick_text(tick, scale), "end")]
    return [*parts, text(4, scale.end - 12, title)]
