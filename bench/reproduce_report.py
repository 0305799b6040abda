"""The reproduction's results as tables in Markdown, with plots beside them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from metalora.config import UserError
from metalora.store.files import write_bytes
from metalora.store.report.leaderboard import check_comparable
from metalora.store.report.reading import read_results
from metalora.store.report.results import Figure, Results, Variant

from .reproduce_balance import above_the_curve, curve_of
from .reproduce_balance_plot import balance_plot
from .reproduce_figures import CLIP_T, COPYING, R_FACESIM, Pace, difference, like, paces
from .reproduce_pieces import Piece
from .reproduce_plots import rank_plot, step_plot, sweep_plot, trade_off_plot

PLOTS = {"methods": (("trade-off", trade_off_plot), ("steps", step_plot)), "ranks": (("ranks", rank_plot),)}
ABOVE = "above LoRA + crops at the same CLIP-T"
WHOLE = ("methods", "ranks")  # the others are each compared with Meta-LoRA of `methods`


def write_report(pieces: Sequence[Piece], folder: Path) -> Path:
    """tables.md and the plots of all pieces that have results; a UserError if they did not measure the same."""
    runs = {piece.name: read_results(piece.folder) for piece in pieces}
    about = {piece.name: piece.about for piece in pieces}
    if not runs:
        raise UserError("No piece has results yet: `--pieces methods` makes the first.")
    check_comparable(runs)
    parts = ["# Tables of the reproduction", provenance(next(iter(runs.values())))]
    for name in WHOLE:
        if name in runs:
            parts += whole_run(name, about[name], runs[name], folder)
    if "methods" in runs:
        parts += sweeps(runs, about, folder)
    path = folder / "tables.md"
    write_bytes(path, ("\n\n".join(parts) + "\n").encode())
    return path


def whole_run(name: str, about: str, results: Results, folder: Path) -> list[str]:
    """Its variants, its plots and the claim."""
    parts = [f"## {about[0].upper()}{about[1:]}"]
    scored = any(variant.figure(R_FACESIM) for variant in results.variants)
    for plot, drawn in PLOTS[name] if scored else ():
        write_bytes(folder / f"{plot}.png", drawn(results))
        parts.append(f"![{about}]({plot}.png)")
    parts.append(variant_table(results))
    if found := paces(results):
        parts += ["How soon is Meta-LoRA as like as LoRA + crops at its own best step count?", pace_table(found)]
    return parts


def sweeps(runs: Mapping[str, Results], about: Mapping[str, str], folder: Path) -> list[str]:
    """Every other run against Meta-LoRA of `methods` at the same steps and rank."""
    methods = runs["methods"]
    rows: list[tuple[str, Variant, Figure | None, Figure | None]] = []
    for name, results in runs.items():
        for variant in results.variants if name not in WHOLE else []:
            if other := like(methods, variant):
                likeness, prompt = (difference(variant, other, score) for score in (R_FACESIM, CLIP_T))
                rows.append((about[name], variant, likeness, prompt))
    if not rows:
        return []
    gains = [(title, variant.steps, gain) for title, variant, gain, _ in rows if gain]
    if gains:
        write_bytes(folder / "sweeps.png", sweep_plot(gains))
        write_bytes(folder / "balance.png", balance_plot(methods, [(title, variant) for title, variant, _, _ in rows]))
    header = ["", "steps", "rank", "R-FaceSim, minus the preset's", "CLIP-T, minus the preset's", ABOVE]
    cells = [
        [title, shown(v.steps), shown(v.rank), signed(gain), signed(prompt, 2), balance(v, methods)]
        for title, v, gain, prompt in rows
    ]
    return [
        "## What else stage 1 could have been",
        "Each against Meta-LoRA on the preset's Meta-Down at equal steps, paired over people; 95% intervals. The "
        "control is the random Meta-Down: where its difference lies below 0, meta-training did something.",
        *(["![differences](sweeps.png)", "![likeness against prompt](balance.png)"] if gains else []),
        table(header, cells),
    ]


def provenance(results: Results) -> str:
    """What was measured on whom, with what."""
    images = max(len(variant.images) for variant in results.variants)
    floor, ceiling = results.faces.impostor_mean, results.faces.genuine_mean
    return (
        f"Base {results.backbone} (fingerprint {results.fingerprint[:12]}), {len(results.people)} people who are in no "
        f"training, {images} images of each variant at most. Faces: {results.faces.name}; strangers have "
        f"{shown(floor)} on real photos, the same person {shown(ceiling)}. Intervals are 95%, over people."
    )


def variant_table(results: Results) -> str:
    """The figures of each."""
    header = ["", "R-FaceSim", "copying", "CLIP-T", "faces found", ABOVE]
    return table(
        header,
        [
            [
                variant.label,
                interval(variant.figure(R_FACESIM)),
                interval(variant.figure(COPYING)),
                interval(variant.figure(CLIP_T), 2),
                "-" if (rate := variant.summary["detection_rate"]) is None else f"{rate:.0%}",
                balance(variant, results),
            ]
            for variant in results.variants
        ],
    )


def balance(variant: Variant, results: Results) -> str:
    """How far above LoRA + crops of the same rank at the same CLIP-T; nothing for LoRA + crops and the base."""
    if variant.method in ("none", "lora-crops"):
        return ""
    return signed(above_the_curve(variant, curve_of(results, variant.rank)))


def pace_table(found: Sequence[Pace]) -> str:
    """The claim, rank by rank."""
    header = ["rank", "LoRA + crops at its best", "Meta-LoRA reaches it at", "share of the steps"]
    header += ["R-FaceSim, ours minus theirs", "CLIP-T, ours minus theirs"]
    rows = [
        [
            str(one.rank),
            f"{one.best.steps} steps: {interval(one.best.figure(R_FACESIM))}",
            f"{one.reached.steps} steps" if one.reached else "no step count measured; its last is compared",
            "-" if one.share is None else f"{one.share:.2f}",
            signed(one.likeness),
            signed(one.prompt, 2),
        ]
        for one in found
    ]
    return table(header, rows)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def interval(figure: Figure | None, digits: int = 3) -> str:
    """0.512 [0.480, 0.544]"""
    if figure is None:
        return "-"
    if figure.low is None or figure.high is None:
        return f"{figure.mean:.{digits}f}"
    return f"{figure.mean:.{digits}f} [{figure.low:.{digits}f}, {figure.high:.{digits}f}]"


def signed(figure: Figure | None, digits: int = 3) -> str:
    """The same with its sign."""
    return "-" if figure is None else f"{'+' if figure.mean >= 0 else ''}{interval(figure, digits)}"


def shown(value: float | int | None) -> str:
    """A number, or a dash."""
    return "-" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
