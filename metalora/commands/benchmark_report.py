"""What a benchmark run found, to look at: the page of one run, the leaderboard of several."""

import argparse
from pathlib import Path

from ..console import driven
from ..flags import Commands

REPORT_HELP = """\
One page that opens in any browser without a network: scores with intervals, charts, people with their images, best and
worst. Beside it two tables for a spreadsheet: images.csv and variants.csv.

  metalora benchmark report my-run
"""

COMPARE_HELP = """\
A leaderboard of several runs. Only runs of the same photos, prompts and embedders are ranked together: their hashes
are compared, and what differs is named. The paired differences of one variant with all others are printed too.

  metalora benchmark compare my-run other-run --out leaderboard.html
  metalora benchmark compare my-run other-run --against my-run:meta-lora-375-r1
"""

FRONTIER_HELP = """\
Steps, rates and ranks buy likeness with prompts. So two methods are compared at equal CLIP-T and at equal R-FaceSim:
every setting of the given runs against the curve through the settings of --curve (those that no other of them beats in
both), paired by person, with intervals.

  metalora benchmark frontier meta-lora --curve plain-lora
  metalora benchmark frontier meta-lora --curve plain-lora plain-lora-rank-4 --plot frontier.png
"""

PRINTED = ("r_facesim", "clip_t", "adherence")


def add_to(kinds: Commands) -> None:
    """Report and compare, as second words of `benchmark`."""
    report = kinds.add("report", "a page and two tables of a finished run", REPORT_HELP, report_benchmark)
    report.add_argument("run", type=Path, help="the folder of a finished run, or its results.json")
    report.add_argument("--out", type=Path, metavar="FOLDER", help="where to write (default: the run's folder)")
    compare = kinds.add("compare", "a leaderboard of several runs", COMPARE_HELP, compare_benchmarks)
    compare.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folders of finished runs")
    compare.add_argument(
        "--out", type=Path, default=Path("leaderboard.html"), metavar="HTML", help="the page (default leaderboard.html)"
    )
    compare.add_argument(
        "--against", metavar="RUN:VARIANT", help="whose differences with all others (default: the first of the ranking)"
    )
    curve = kinds.add("frontier", "one method against another's curve", FRONTIER_HELP, compare_on_frontier)
    curve.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folders of finished runs of one method")
    curve.add_argument("--curve", type=Path, nargs="+", required=True, metavar="RUN", help="runs of the other method")
    curve.add_argument(
        "--only", nargs="+", default=[], metavar="TEXT", help="only people whose names hold one of these"
    )
    curve.add_argument("--plot", type=Path, metavar="PNG", help="draw both curves")


def report_benchmark(args: argparse.Namespace) -> None:
    """Write the page and the tables of a run."""
    from ..jobs.benchmark.report import benchmark_report as job

    report = driven(job(args.run, args.out))
    print(
        f"wrote {report.page} ({report.size / 1e6:.1f} MB, {report.shown} pictures), {report.images}, {report.variants}"
    )
    if report.absent:
        print(f"{report.absent} pictures are not in the run's folder, or not the ones that were scored")


def compare_benchmarks(args: argparse.Namespace) -> None:
    """Write the leaderboard of several runs."""
    from ..jobs.benchmark.compare import benchmark_compare as job

    board = driven(job(args.runs, args.out, args.against))
    print(f"wrote {board.page} ({board.variants} variants) and {board.table}")
    for found in board.comparisons:
        if found.score in PRINTED and found.misses in (None, "left out"):
            interval = "" if found.low is None else f" ({found.low:+.4f} to {found.high:+.4f})"
            print(f"{found.one} minus {found.other}: {found.score} {found.mean:+.4f}{interval}, {found.count} people")


def compare_on_frontier(args: argparse.Namespace) -> None:
    """Print each setting and its distances from the other method's curve."""
    from ..jobs.benchmark.frontier import BACKGROUND, LIKENESS, PROMPT
    from ..jobs.benchmark.frontier import frontier as job

    found = driven(job(args.runs, args.curve, args.only, args.plot))
    width = max(len(f"{one.setting.run} {one.setting.label}") for one in found)
    print(
        f"{'':{width}}  R-FaceSim  CLIP-T  background  R-FaceSim at equal CLIP-T  CLIP-T at equal R-FaceSim  "
        "background at equal R-FaceSim"
    )
    for one in found:
        own = one.setting
        means = [f"{own.mean(LIKENESS):9.3f}", f"{own.mean(PROMPT):6.2f}", f"{own.mean(BACKGROUND):10.0%}"]
        distances = [
            "off the curve" if d is None else f"{d.mean:+.{digits}f} ({d.low:.{digits}f} to {d.high:.{digits}f})"
            for d, digits in ((one.likeness, 3), (one.prompt, 2), (one.background, 3))
        ]
        print(f"{own.run + ' ' + own.label:{width}}  {'  '.join(means)}  {'  '.join(f'{d:>25}' for d in distances)}")
    if args.plot:
        print(f"wrote {args.plot}")
