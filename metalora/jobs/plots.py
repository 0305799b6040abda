"""Pictures of numbers."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..config import UserError
from ..store.files import write_bytes
from . import SMOOTHING


def save_loss_curve(path: Path, losses: dict[str, list[float]]) -> None:
    """Write `loss_curve`."""
    write_bytes(path, loss_curve(losses))


@contextmanager
def optional_drawing(what: str, said: list[str]) -> Iterator[None]:
    """Draw inside. A failure is one sentence more in `said`: a picture of the work is not the work."""
    try:
        yield
    except (UserError, ImportError, OSError, RuntimeError, ValueError) as error:
        said.append(f"{what} could not be drawn ({error}); all else is there")


def loss_curve(losses: dict[str, list[float]]) -> bytes:
    """A PNG, one line a run: faint single losses, and their running mean over the last `SMOOTHING` steps."""
    figure, axes = new_figure(7, 4)
    for label, values in losses.items():
        steps = range(1, len(values) + 1)
        means = [sum(values[max(0, i - SMOOTHING) : i]) / min(i, SMOOTHING) for i in steps]
        (line,) = axes.plot(steps, means, linewidth=2, label=label)
        axes.plot(steps, values, linewidth=0.7, alpha=0.25, color=line.get_color())
    axes.set(xlabel="step", ylabel="flow-matching loss", title=f"training loss, mean of {SMOOTHING} steps")
    axes.legend()
    return png(figure)


def likeness_plot(held_out: list[float | None], reference: list[float | None]) -> bytes:
    """A PNG: each image's cosine to the held-out photos and to the photo that was learned from; gaps have no face."""
    figure, axes = new_figure(7, 4)
    for label, values, marker in (("held-out photos", held_out, "o"), ("reference photo", reference, "x")):
        there = [(index, value) for index, value in enumerate(values, 1) if value is not None]
        axes.plot([index for index, _ in there], [value for _, value in there], marker, label=label)
    axes.set(xlabel="image", ylabel="cosine", title="likeness: what lies above the held-out marks is copying")
    axes.legend()
    return png(figure)


def frontier_plot(curves: dict[str, list[tuple[float, float, str]]]) -> bytes:
    """A PNG: each method's settings as points (CLIP-T, R-FaceSim, label), joined in the order of CLIP-T."""
    figure, axes = new_figure(8, 5)
    for place, (name, points) in enumerate(curves.items()):
        ordered = sorted(points)
        (line,) = axes.plot([x for x, _, _ in ordered], [y for _, y, _ in ordered], "o-", label=name)
        offset, side = ((7, 5), "left") if place == 0 else ((-7, -11), "right")
        for x, y, label in ordered:
            words = axes.annotate(label, (x, y), xytext=offset, textcoords="offset points", fontsize=8, ha=side)
            words.set_color(line.get_color())
    axes.margins(0.12)
    axes.set(xlabel="CLIP-T: shows what was asked", ylabel="R-FaceSim: is like the person", title="above is better")
    axes.legend()
    return png(figure)


def new_figure(width: float, height: float, rows: int = 1) -> tuple[Any, Any]:
    """A figure of so many inches and its axes, below each other if there are several, with a grid."""
    from matplotlib.figure import Figure  # imported late: not every job draws

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, sharex=True)
    for each in figure.axes:
        each.grid(alpha=0.3)
    return figure, axes


def png(figure: Any) -> bytes:
    """The file: no version of a program is in it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()
