"""The reproduction's plots: likeness against prompt, both against steps and ranks, and the sweeps' differences."""

import io
from collections.abc import Callable, Sequence
from typing import Any

from metalora.store.report.results import Figure, Results, Variant

from .reproduce_figures import CLIP_T, COPYING, R_FACESIM, line, ranks_of

NAMES = {"meta-lora": "Meta-LoRA", "lora-crops": "LoRA + crops", "lora": "LoRA, whole photo"}
COLOURS = {"meta-lora": "#0072b2", "lora-crops": "#d55e00", "lora": "#009e73"}  # told apart by the colour-blind too
MARKS = {"meta-lora": "o", "lora-crops": "s", "lora": "^"}
SCORES = ((R_FACESIM, "R-FaceSim (higher: more like)"), (CLIP_T, "CLIP-T (higher: as asked)"))
SCORES += ((COPYING, "copying (lower: better)"),)


def trade_off_plot(results: Results) -> bytes:
    """R-FaceSim against CLIP-T, a line a method and rank, its step counts along it: the paper's Figure 3."""
    figure = new_figure(7, 5)
    axes = figure.subplots()
    for method in NAMES:
        for rank in ranks_of(results):
            both = [(v, v.figure(CLIP_T), v.figure(R_FACESIM)) for v in line(results, method, rank)]
            points = [(v, x, y) for v, x, y in both if x and y]
            if not points:
                continue
            axes.errorbar(
                [x.mean for _, x, _ in points],
                [y.mean for _, _, y in points],
                xerr=errors([x for _, x, _ in points]),
                yerr=errors([y for _, _, y in points]),
                **style(method, f"{NAMES[method]}, rank {rank}"),
            )
            for variant, x, y in points:
                axes.annotate(str(variant.steps), (x.mean, y.mean), (5, 5), textcoords="offset points", fontsize=8)
    axes.set(xlabel="CLIP-T: fits the prompt", ylabel="R-FaceSim: like the person", title="numbers: training steps")
    return finished(figure, [axes])


def step_plot(results: Results) -> bytes:
    """Three scores against training steps, at the smallest rank that was measured."""
    rank = min(ranks_of(results), default=None)
    return panels(results, "training steps", lambda method: [(v.steps or 0, v) for v in line(results, method, rank)])


def rank_plot(results: Results) -> bytes:
    """Three scores against the rank, at the largest step count."""
    steps = max((variant.steps or 0 for variant in results.variants), default=0)

    def along(method: str) -> list[tuple[int, Variant]]:
        found = [v for v in results.variants if v.method == method and v.steps == steps]
        return sorted(((v.rank or 0, v) for v in found), key=lambda pair: pair[0])

    return panels(results, f"rank, {steps} steps", along)


def panels(results: Results, title: str, along: Callable[[str], list[tuple[int, Variant]]]) -> bytes:
    """A panel a score."""
    figure = new_figure(12, 4)
    all_axes = figure.subplots(1, len(SCORES))
    for axes, (score, label) in zip(all_axes, SCORES, strict=True):
        for method in NAMES:
            points = [(x, found) for x, variant in along(method) if (found := variant.figure(score))]
            if points:
                heights = [found for _, found in points]
                axes.errorbar(
                    [x for x, _ in points],
                    [found.mean for found in heights],
                    yerr=errors(heights),
                    **style(method, NAMES[method]),
                )
        axes.set(xlabel=title, ylabel=label)
    for value, name in ((results.faces.impostor_mean, "strangers"), (results.faces.genuine_mean, "the same person")):
        if value is not None:
            all_axes[0].axhline(value, color="gray", linestyle=":", linewidth=1)
            all_axes[0].annotate(name, (0.02, value), xycoords=("axes fraction", "data"), fontsize=8, va="bottom")
    return finished(figure, list(all_axes))


def sweep_plot(rows: Sequence[tuple[str, int | None, Figure]]) -> bytes:
    """A point with its interval for each difference; the line is the preset."""
    figure = new_figure(8, 1.2 + 0.28 * len(rows))
    axes = figure.subplots()
    for place, (_, _, gain) in enumerate(rows):
        axes.errorbar(gain.mean, -place, xerr=errors([gain]), fmt="o", color="#0072b2", capsize=3, markersize=4)
    axes.axvline(0, color="gray", linewidth=1)
    axes.set_yticks([-place for place in range(len(rows))], [f"{title}, {steps} steps" for title, steps, _ in rows])
    axes.set(xlabel="R-FaceSim, minus that of the preset's Meta-Down at equal steps")
    return finished(figure, [])


def style(method: str, label: str) -> dict[str, Any]:
    """How a method looks everywhere."""
    return {"color": COLOURS[method], "marker": MARKS[method], "label": label, "capsize": 3, "linewidth": 1.5}


def errors(figures: Sequence[Figure]) -> list[list[float]]:
    """Below and above; none where there is no interval."""
    below = [0.0 if one.low is None else max(0.0, one.mean - one.low) for one in figures]
    return [below, [0.0 if one.high is None else max(0.0, one.high - one.mean) for one in figures]]


def new_figure(width: float, height: float) -> Any:
    """An empty one."""
    from matplotlib.figure import Figure as Drawing  # imported late: listing the pieces draws nothing

    return Drawing(figsize=(width, height), layout="constrained")


def finished(figure: Any, with_legend: Sequence[Any]) -> bytes:
    """A PNG."""
    for axes in figure.axes:
        axes.grid(alpha=0.3)
    for axes in with_legend:
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()
