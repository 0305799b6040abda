"""A leaderboard of several benchmark runs."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ...config import Phase, Step, UserError
from ...store.files import write_bytes
from ...store.report.leaderboard import check_comparable, merged
from ...store.report.page import leaderboard_page
from ...store.report.reading import read_results
from ...store.report.results import Comparison, Results
from ...store.report.scores import variants_csv
from .. import Job
from .summary import comparisons


@dataclass(frozen=True)
class Leaderboard:
    """What was written."""

    page: Path
    table: Path
    variants: int
    comparisons: list[Comparison]  # of the one that was asked for with all others


def benchmark_compare(runs: Sequence[Path], out: Path, against: str | None = None) -> Job[Leaderboard]:
    """Rank all variants of all runs in `out` (HTML) and beside it (CSV); runs that measured otherwise are refused.

    Paired differences are those of one variant, RUN:VARIANT, with all others; of the first of the ranking by default.
    """
    if len({run.resolve() for run in runs}) < 2:
        raise UserError(
            "A comparison needs two or more different runs; `metalora benchmark report` shows a single one."
        )
    if out.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"{out}: the leaderboard is a web page; give --out a name that ends in .html.")
    yield Phase(f"reading {len(runs)} runs")
    found = dict(zip(_names(runs), map(read_results, runs), strict=True))
    check_comparable(found)
    together = merged(found)
    chosen = 0 if against is None else _index_of(against, together)
    others = [index for index in range(len(together.variants)) if index != chosen]
    compared: list[Comparison] = []
    for count, index in enumerate(others, 1):
        compared += _pair(together, chosen, index)
        yield Step(count, len(others))
    together = replace(together, comparisons=compared)
    table = out.with_suffix(".csv")
    write_bytes(table, variants_csv(together))
    write_bytes(out, leaderboard_page(together, found).encode("utf-8"))
    return Leaderboard(out, table, len(together.variants), compared)


def _index_of(against: str, together: Results) -> int:
    """Where RUN:VARIANT is."""
    ids = [variant.id for variant in together.variants]
    run, _, variant = against.partition(":")
    if (name := f"{run}: {variant.strip()}") not in ids:
        listed = ", ".join(one.replace(": ", ":") for one in ids)
        raise UserError(f"--against {against}: no run has such a variant. There are {listed}.")
    return ids.index(name)


def _pair(together: Results, chosen: int, index: int) -> list[Comparison]:
    """The paired differences of two variants, over the people that both were scored on."""
    people = {person.identity for person in together.people if person.held_out}
    pair = [
        {"id": variant.id, "images": [asdict(image) for image in variant.images]}
        for variant in (together.variants[chosen], together.variants[index])
    ]
    return [Comparison(**difference) for difference in comparisons(pair, people)]


def _names(runs: Sequence[Path]) -> list[str]:
    """The folders' names; whole paths where two have the same name."""
    folders = [run if run.is_dir() else run.parent for run in runs]
    counts = Counter(folder.resolve().name for folder in folders)
    return [str(f) if counts[f.resolve().name] > 1 else f.resolve().name for f in folders]
