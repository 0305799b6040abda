"""A leaderboard of several benchmark runs."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ...config import Phase, Step, UserError
from ...store.files import write_bytes
from ...store.report.leaderboard import check_comparable, leaderboard_page, merged
from ...store.report.reading import read_results
from ...store.report.results import Comparison, Results
from ...store.report.tables_csv import variants_csv
from .. import Job
from .summary import comparisons


@dataclass(frozen=True)
class Leaderboard:
    """What was written."""

    page: Path
    table: Path
    variants: int


def benchmark_compare(runs: Sequence[Path], out: Path) -> Job[Leaderboard]:
    """Rank all variants of all runs in `out` (HTML) and beside it (CSV); runs that measured otherwise are refused."""
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
    compared: list[Comparison] = []
    for index in range(1, len(together.variants)):
        compared += _with_the_first(together, index)
        yield Step(index, len(together.variants) - 1)
    together = replace(together, comparisons=compared)
    table = out.with_suffix(".csv")
    write_bytes(table, variants_csv(together))
    write_bytes(out, leaderboard_page(together, found).encode("utf-8"))
    return Leaderboard(out, table, len(together.variants))


def _with_the_first(together: Results, index: int) -> list[Comparison]:
    """The paired differences of the first variant and another, over the people that both were scored on."""
    people = {person.identity for person in together.people if person.held_out}
    pair = [
        {"id": variant.id, "images": [asdict(image) for image in variant.images]}
        for variant in (together.variants[0], together.variants[index])
    ]
    return [Comparison(**difference) for difference in comparisons(pair, people)]


def _names(runs: Sequence[Path]) -> list[str]:
    """The folders' names; whole paths where two have the same name."""
    folders = [run if run.is_dir() else run.parent for run in runs]
    counts = Counter(folder.resolve().name for folder in folders)
    return [str(f) if counts[f.resolve().name] > 1 else f.resolve().name for f in folders]
