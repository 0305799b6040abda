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
            across, up = [x for _, x, _ in points], [y for _, _, y in points]
            draw(axes, method, [x.mean for x in across], up, across, label=f"{NAMES[method]}, rank {rank}")
            for variant, x, y in points:
                place = {"textcoords": "offset points", "fontsize": 8, "color": COLOURS[method]}
                axes.annotate(str(variant.steps), (x.mean, y.mean), (5, 5), **place)
    axes.set(xlabel="CLIP-T (higher: as asked)", ylabel="R-FaceSim (higher: more like)")
    return finished(figure, "numbers beside the points: training steps")


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
        places: set[int] = set()
        for method in NAMES:
            points = [(x, found) for x, variant in along(method) if (found := variant.figure(score))]
            if points:
                draw(axes, method, [x for x, _ in points], [found for _, found in points], label=NAMES[method])
                places |= {x for x, _ in points}
        axes.set_xscale("log")
        axes.set_xticks(sorted(places), [str(place) for place in sorted(places)])
        axes.minorticks_off()
        axes.set(xlabel=title, ylabel=label)
    for value, name in ((results.faces.impostor_mean, "strangers"), (results.faces.genuine_mean, "the same person")):
        if value is not None:
            all_axes[0].axhline(value, color="gray", linestyle=":", linewidth=1)
            all_axes[0].annotate(name, (0.02, value), xycoords=("axes fraction", "data"), fontsize=8, va="bottom")
    return finished(figure, "")


def sweep_plot(rows: Sequence[tuple[str, int | None, Figure]]) -> bytes:
    """A row for each change of stage 1, in it a point with its interval for each step count; the line is the preset."""
    from matplotlib import colormaps

    titles = list(dict.fromkeys(title for title, _, _ in rows))
    counts = sorted({steps or 0 for _, steps, _ in rows})
    figure = new_figure(9, 1.4 + 0.5 * len(titles))
    axes = figure.subplots()
    for index, steps in enumerate(counts):
        own = [(titles.index(title), gain) for title, count, gain in rows if count == steps]
        axes.errorbar(
            [gain.mean for _, gain in own],
            [-place - 0.6 * (index + 0.5) / len(counts) + 0.3 for place, _ in own],
            xerr=errors([gain for _, gain in own]),
            fmt="o",
            color=colormaps["viridis"](0.9 * index / max(1, len(counts) - 1)),
            markersize=4,
            capsize=2,
            label=f"{steps} steps",
        )
    axes.axvline(0, color="gray", linewidth=1)
    axes.set_yticks([-place for place in range(len(titles))], titles)
    axes.set(xlabel="R-FaceSim, minus the preset's at equal steps", ylim=(0.5 - len(titles), 0.5))
    return finished(figure, "")


def draw(
    axes: Any, method: str, x: Sequence[float], up: Sequence[Figure], across: Sequence[Figure] = (), *, label: str
) -> None:
    """A method's line and marks, its intervals faint behind them."""
    heights, look = [one.mean for one in up], {"color": COLOURS[method]}
    axes.errorbar(
        x, heights, yerr=errors(up), xerr=errors(across) if across else None, fmt="none", capsize=3, alpha=0.4, **look
    )
    axes.plot(x, heights, marker=MARKS[method], linewidth=1.8, label=label, **look)


def errors(figures: Sequence[Figure]) -> list[list[float]]:
    """Below and above; none where there is no interval."""
    below = [0.0 if one.low is None else max(0.0, one.mean - one.low) for one in figures]
    return [below, [0.0 if one.high is None else max(0.0, one.high - one.mean) for one in figures]]


def new_figure(width: float, height: float) -> Any:
    """An empty one."""
    from matplotlib.figure import Figure as Drawing  # imported late: listing the pieces draws nothing

    return Drawing(figsize=(width, height), layout="constrained")


def finished(figure: Any, note: str, columns: int = 5) -> bytes:
    """A PNG with a legend above all panels."""
    for axes in figure.axes:
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    if handles:
        figure.legend(
            handles, labels, loc="outside upper center", ncols=min(columns, len(labels)), frameon=False, title=note
        )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()
