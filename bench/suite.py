"""Everything that is asked of speed and memory, on the machine that is here, in one command.

    python -m bench.suite OUT                      # on the GPU if there is one, else the miniature on the CPU
    python -m bench.suite OUT --quick              # few steps; on a GPU 512 pixels alone
    python -m bench.suite OUT --list               # only say what would be run
    python -m bench.suite OUT --only 1024-batch-1 capped   # rows whose names have one of these in them
    python -m bench.suite OUT --backbone flux-dev  # the whole job on FLUX.1-dev's own weights

Each measurement is a process of its own: one that runs out of memory is a row. Ctrl-C loses the row that is running;
the same call goes on. OUT gets suite.json, suite.md, suite.png, and a folder with each row's report and what it said.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from metalora.store.files import write_bytes

from .reporting import OUT_OF_MEMORY, REFUSED
from .suite_report import plot, table
from .suite_rows import H200_TFLOP, Row, rows_of

STATUS = {0: "done", OUT_OF_MEMORY: "out of memory", REFUSED: "refused", -9: "killed for memory"}
FINAL = ("done", "out of memory", "killed for memory")  # what another call would find again
LAST_WORDS = 3  # lines of a failed row that are kept


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is left; the table after every row, so that a stopped suite has one too."""
    args = parsed(arguments)
    rows = chosen(rows_of(args.device, quick=args.quick, peak=args.peak, backbone=args.backbone), args.only)
    if args.list:
        for row in rows:
            print("python", *row.command())
        return 0
    try:
        for number, row in enumerate(rows, 1):
            if finished(args.out, row) is None:
                print(f"{number} of {len(rows)}: {row.name}", flush=True)
                print(f"    {measured(args.out, row, args.minutes)['status']}", flush=True)
                write_report(args.out, rows)
    except KeyboardInterrupt:
        print("stopped. The same call goes on.", file=sys.stderr)
        return 130
    print(write_report(args.out, rows))
    return 0


def chosen(rows: Sequence[Row], words: Sequence[str]) -> list[Row]:
    """Those with one of the words in their name, in the order of the words; all without words."""
    if not words:
        return list(rows)
    found = {row.name: row for word in words for row in rows if word in row.name}
    if not found:
        raise SystemExit(f"No row has {' or '.join(words)} in its name: {', '.join(row.name for row in rows)}.")
    return list(found.values())


def finished(out: Path, row: Row) -> dict | None:
    """The row's record, if the very same command was measured; what failed or was refused is tried again."""
    path = out / "rows" / f"{row.name}.json"
    record = json.loads(path.read_text()) if path.exists() else None
    if record is None or record["command"] != row.command() or record["status"] not in FINAL:
        return None
    return record


def measured(out: Path, row: Row, minutes: float) -> dict:
    """Run it, for so long at most, and keep what it reports and, where it failed, its last words."""
    report = out / "rows" / f"{row.name}.report.json"
    report.parent.mkdir(parents=True, exist_ok=True)
    report.unlink(missing_ok=True)
    command = [sys.executable, *row.command(), "--out", str(report)]
    log = out / "rows" / f"{row.name}.log"
    record = {"name": row.name, "group": row.group, "command": row.command()}
    with log.open("w") as words:
        try:
            ran = subprocess.run(command, stdout=words, stderr=subprocess.STDOUT, timeout=60 * minutes)
            record["status"] = STATUS.get(ran.returncode, "failed")
        except subprocess.TimeoutExpired:
            record["status"] = f"stopped after {minutes:g} minutes"
    if report.exists():
        record["report"] = json.loads(report.read_text())
        report.unlink()
    elif record["status"] == "done":
        record["status"] = "failed"
    if record["status"] != "done":
        record["said"] = log.read_text(errors="replace").strip().splitlines()[-LAST_WORDS:]
    write_bytes(out / "rows" / f"{row.name}.json", (json.dumps(record, indent=1) + "\n").encode())
    return record


def write_report(out: Path, rows: Sequence[Row]) -> str:
    """suite.json, suite.md and suite.png of the rows that are there; the table."""
    records = []
    for row in rows:
        path = out / "rows" / f"{row.name}.json"
        if path.exists():
            records.append(json.loads(path.read_text()))
    write_bytes(out / "suite.json", (json.dumps({"rows": records}, indent=1) + "\n").encode())
    text = table(records, missing=len(rows) - len(records))
    write_bytes(out / "suite.md", text.encode())
    if picture := plot(records):
        write_bytes(out / "suite.png", picture)
    return text


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT", help="a folder for the results")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cuda or cpu")
    parser.add_argument("--quick", action="store_true", help="few steps, to see that everything runs")
    parser.add_argument("--peak", default=H200_TFLOP, metavar="TFLOP/S", help="of the GPU's bf16 products: the floor")
    parser.add_argument("--backbone", default="miniature", help="of the whole job on a GPU (default miniature)")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="WORD", help="only rows with one of these in their name"
    )
    parser.add_argument("--minutes", type=float, default=20, help="after which a row is stopped (default 20)")
    parser.add_argument("--list", action="store_true", help="print the commands and run none")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
