"""What a benchmark run found, to look at: the page of one run, two methods at equal prompts and likeness."""

import argparse
from pathlib import Path

from ..cli import Commands
from ..jobs import driven

REPORT_HELP = """\
One page that opens in any browser without a network: scores with intervals, charts, people with their images, best and
worst. Beside it two tables for a spreadsheet: images.csv and variants.csv.

  metalora benchmark report my-run
"""

FRONTIER_HELP = """\
Steps, rates and ranks buy likeness with prompts. So two methods are compared at equal CLIP-T and at equal R-FaceSim:
every setting of the given runs against the curve through the settings of --curve (those that no other of them beats in
both), paired by person, with intervals.

  metalora benchmark frontier meta-lora --curve plain-lora
  metalora benchmark frontier meta-lora --curve plain-lora plain-lora-rank-4 --plot frontier.png
"""


def add_to(kinds: Commands) -> None:
    """Report and frontier, as second words of `benchmark`."""
    report = kinds.add("report", "a page and two tables of a finished run", REPORT_HELP, report_benchmark)
    report.add_argument("run", type=Path, help="the folder of a finished run, or its results.json")
    report.add_argument("--out", type=Path, metavar="FOLDER", help="where to write (default: the run's folder)")
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
