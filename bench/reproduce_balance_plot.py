"""Where variants lie beside the curve of LoRA + crops, likeness against prompt: the thought is in reproduce_balance."""

from collections.abc import Mapping, Sequence
from math import ceil
from textwrap import fill
from typing import Any

from metalora.store.report.results import Results, Variant

from .reproduce_balance import curve_of
from .reproduce_figures import CLIP_T, R_FACESIM, line, ranks_of
from .reproduce_plots import COLOURS, MARKS, NAMES, errors, finished, new_figure

OTHERS = ("#0072b2", "#009e73", "#cc79a7", "#56b4e9", "#b8860b", "#7570b3", "#666666", "#1b4f72")
OTHER_MARKS = "oDv^<>pP"
ACROSS, UP = "CLIP-T (higher: as asked)", "R-FaceSim (higher: more like)"
NOTE = "numbers beside the points: training steps"

Lines = Mapping[str, Sequence[Variant]]


def balance_plot(results: Results, others: Sequence[tuple[str, Variant]]) -> bytes:
    """A line for each title, along it its step counts: together, or a panel each where they would hide each other."""
    rank = min(ranks_of(results))
    curve = {f"{NAMES['lora-crops']}, rank {rank}": curve_of(results, rank)}
    preset = {NAMES["meta-lora"]: line(results, "meta-lora", rank)}
    titled: dict[str, list[Variant]] = {}
    for title, variant in others:
        titled.setdefault(title, []).append(variant)
    reference = curve | {title: variants for title, variants in preset.items() if variants}
    return one_drawing(reference | titled) if len(titled) < len(OTHERS) else a_panel_each(reference, titled)


def one_drawing(lines: Lines) -> bytes:
    """All together; the first is the curve."""
    figure = new_figure(9, 5.5)
    axes = figure.subplots()
    for index, (title, variants) in enumerate(lines.items()):
        colour, mark = (OTHERS[index - 1], OTHER_MARKS[index - 1]) if index else curve_look()
        draw(axes, variants, colour, mark, title, linewidth=1 if index else 2)
        draw_intervals(axes, variants, colour)
    axes.set(xlabel=ACROSS, ylabel=UP)
    return finished(figure, NOTE, columns=2)


def a_panel_each(reference: Lines, titled: Lines, columns: int = 4) -> bytes:
    """Each title's line in a panel of its own, before the same faint reference."""
    rows = ceil(len(titled) / columns)
    figure = new_figure(3 * columns, 2.5 * rows + 1)
    panels = list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat)
    looks = [(title, *look) for title, look in zip(reference, (curve_look(), ("#888888", "o")), strict=False)]
    for axes, (title, variants) in zip(panels, titled.items(), strict=False):
        for name, colour, mark in looks:
            draw(axes, reference[name], colour, mark, name, numbered=False, alpha=0.6, markersize=4)
        draw(axes, variants, COLOURS["meta-lora"], "D", "what the panel names")
        draw_intervals(axes, variants, COLOURS["meta-lora"])
        axes.set_title(fill(title, 34), fontsize=9)
    for axes in panels[len(titled) :]:
        axes.remove()
    figure.supxlabel(ACROSS, fontsize=10)
    figure.supylabel(UP, fontsize=10)
    return finished(figure, NOTE)


def draw(
    axes: Any,
    variants: Sequence[Variant],
    colour: str,
    mark: str,
    title: str,
    *,
    numbered: bool = True,
    linewidth: float = 1.5,
    alpha: float = 1.0,
    markersize: float = 6,
) -> None:
    """Points joined in the order of their steps."""
    found = points(variants)
    places, heights = [x.mean for _, x, _ in found], [y.mean for _, _, y in found]
    look = {"color": colour, "alpha": alpha}
    axes.plot(places, heights, marker=mark, label=title, linewidth=linewidth, markersize=markersize, **look)
    for variant, x, y in found if numbered else ():
        said = str(variant.steps or "no LoRA")
        axes.annotate(said, (x.mean, y.mean), (5, 5), textcoords="offset points", fontsize=8, **look)


def draw_intervals(axes: Any, variants: Sequence[Variant], colour: str) -> None:
    """Faint, both ways."""
    found = points(variants)
    across, up = [x for _, x, _ in found], [y for _, _, y in found]
    places, heights = [x.mean for x in across], [y.mean for y in up]
    axes.errorbar(places, heights, errors(up), errors(across), fmt="none", alpha=0.2, color=colour)


def points(variants: Sequence[Variant]) -> list[tuple[Variant, Any, Any]]:
    """(variant, its CLIP-T, its R-FaceSim) of those that have both, by steps."""
    found = [(v, x, y) for v in variants if (x := v.figure(CLIP_T)) and (y := v.figure(R_FACESIM))]
    return sorted(found, key=lambda point: point[0].steps or 0)


def curve_look() -> tuple[str, str]:
    """The colour and the mark of LoRA + crops."""
    return COLOURS["lora-crops"], MARKS["lora-crops"]
