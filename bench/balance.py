"""Which runs of a benchmark balance likeness and prompt better than LoRA + crops, and a plot of them beside its curve.

    python -m bench.balance none crops ours random --rank 4 --plot balance.png

The runs are folders of `metalora benchmark run` on the same people, prompts and noise; one has LoRA + crops at several
step counts, one the base without a LoRA (`--methods none`). What is meant: reproduce_balance.py.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from metalora.config import UserError
from metalora.store.files import write_bytes
from metalora.store.report.leaderboard import check_comparable
from metalora.store.report.reading import read_results
from metalora.store.report.results import Results, Variant

from .reproduce_balance import above_the_curve, curve_of
from .reproduce_balance_plot import balance_plot
from .reproduce_figures import CLIP_T, R_FACESIM
from .reproduce_report import ABOVE, interval, signed, table

CURVE = ("none", "lora-crops")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table of every run's variants; write the plot if asked to."""
    args = parser().parse_args(arguments)
    try:
        runs = {folder.name: read_results(folder) for folder in args.runs}
        check_comparable(runs)
        curve = together(runs, args.rank)
        if len(curve.variants) < 2:
            raise UserError(f"These runs have no curve of LoRA + crops at rank {args.rank}: two step counts make one.")
        others = [
            (name, variant)
            for name, results in runs.items()
            for variant in results.variants
            if variant.method not in CURVE
        ]
        print(balances(curve, others))
        if args.plot:
            write_bytes(args.plot, balance_plot(curve, others))
            print(f"\nwrote {args.plot}")
    except UserError as error:
        print(f"balance: {error}", file=sys.stderr)
        return 1
    return 0


def together(runs: dict[str, Results], rank: int) -> Results:
    """The base and LoRA + crops at this rank of all runs, as one run."""
    variants = [variant for results in runs.values() for variant in curve_of(results, rank)]
    return replace(next(iter(runs.values())), variants=variants)


def balances(curve: Results, others: Sequence[tuple[str, Variant]]) -> str:
    """A row for each variant, first those of the curve itself."""
    on_it = [[variant.label, *scores(variant), ""] for variant in curve.variants]
    beside = [[f"{name}: {v.label}", *scores(v), signed(above_the_curve(v, curve.variants))] for name, v in others]
    return table(["", "R-FaceSim", "CLIP-T", ABOVE], [*on_it, *beside])


def scores(variant: Variant) -> list[str]:
    """Likeness and prompt."""
    return [interval(variant.figure(R_FACESIM)), interval(variant.figure(CLIP_T), 2)]


def parser() -> argparse.ArgumentParser:
    """The flags."""
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folders of finished runs")
    found.add_argument("--rank", type=int, default=1, help="of LoRA + crops, whose curve it is (default 1)")
    found.add_argument("--plot", type=Path, metavar="PNG", help="draw it here")
    return found


if __name__ == "__main__":
    sys.exit(main())
