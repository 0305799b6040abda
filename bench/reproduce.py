"""The paper's comparison in miniature, from stage 1 to tables and plots, in pieces that can be stopped.

    python -m bench.reproduce reproduction --list                         # what there is, and its commands
    python -m bench.reproduce reproduction                                # all of it: many hours
    python -m bench.reproduce reproduction --pieces trained methods       # the paper's figures alone
    python -m bench.reproduce quick --size five-minutes                   # stage 1 in minutes, against the control
    python -m bench.reproduce reproduction --pieces report --docs docs/reproduction

A piece is a folder. Ctrl-C, or a crash, loses little: the same call goes on. People for stage 1 are rendered
(tools/miniature/requirements.txt), or given with --people; whom the methods are measured on is in the mini benchmark,
or given with --manifest and --prompts.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from metalora.cli import main as metalora
from metalora.config import UserError

from .reproduce_pieces import Command, Inputs, Piece, pieces_of
from .reproduce_report import write_report
from .reproduce_sizes import SIZES


def main(arguments: Sequence[str] | None = None) -> int:
    """Do the pieces that are not done, then the report on all that are there."""
    args = parser().parse_args(arguments)
    size = SIZES[args.size]
    pieces = {
        piece.name: piece for piece in pieces_of(args.out, size, Inputs(args.people, args.manifest, args.prompts))
    }
    chosen = args.pieces or [*pieces, "report"]
    if unknown := [name for name in chosen if name not in (*pieces, "report")]:
        parser().error(f"no such piece: {', '.join(unknown)}; there are {', '.join(pieces)} and report")
    if args.list:
        show(pieces)
        return 0
    try:
        code = carried_out([pieces[name] for name in needed(chosen, pieces)], args.processes)
        if code == 0 and "report" in chosen:
            done = [piece for piece in pieces.values() if piece.results.exists()]
            print(f"wrote {write_report(done, args.docs or args.out / 'report')}")
    except UserError as error:
        print(f"reproduce: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped. The same call goes on.", file=sys.stderr)
        return 130
    return code


def needed(chosen: Sequence[str], pieces: dict[str, Piece]) -> list[str]:
    """The chosen pieces, each after those that it stands on."""
    found: list[str] = []

    def add(name: str) -> None:
        for need in pieces[name].needs:
            add(need)
        if name not in found:
            found.append(name)

    for name in pieces:
        if name in chosen:
            add(name)
    return found


def carried_out(pieces: Sequence[Piece], processes: int) -> int:
    """One after the other; the exit status of the first command that fails."""
    left, done, began = sum(map(work_left, pieces)), 0.0, time.monotonic()
    for piece in pieces:
        for at_once in batches(piece, processes):
            time_left = ""
            if done:
                time_left = f", about {(time.monotonic() - began) / done * (left - done) / 3600:.1f} hours left"
            print(f"== {piece.name}: {piece.about}{time_left}", *at_once, sep="\n   ", flush=True)
            if code := run_all(at_once, processes):
                return code
            done += sum(command.work for command in at_once)
    return 0


def batches(piece: Piece, processes: int) -> Iterator[list[Command]]:
    """The commands that are to be done, in their order; those that may run beside each other together."""
    left = [command for command in piece.commands() if not command.makes.exists()]
    while left:
        count = 1
        while count < min(processes, len(left)) and left[count - 1].beside and left[count].beside:
            count += 1
        yield left[:count]
        left = left[count:]


def run_all(commands: Sequence[Command], processes: int) -> int:
    """Side by side where there are several; the exit status of the first that fails."""
    if len(commands) == 1:
        return run(commands[0], processes)
    started = [subprocess.Popen([*python_of(command), *command.words], env=one_thread()) for command in commands]
    return next((code for code in [process.wait() for process in started] if code), 0)


def one_thread() -> dict[str, str]:
    """The environment of a process that leaves the other cores to others."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def work_left(piece: Piece) -> float:
    """How much of it is to be done."""
    return sum(command.work for command in piece.commands() if not command.makes.exists())


def run(command: Command, processes: int) -> int:
    """In this process, or where it can be shared in several."""
    if command.program == "metalora" and (processes == 1 or not command.shared):
        torch.set_num_threads(1)  # as in a benchmark: the last digits depend on it; more cores want more processes
        return metalora(command.words)
    start = python_of(command)
    if command.shared and processes > 1:
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        start = [sys.executable, *torchrun, *start[1:]]
    return subprocess.run([*start, *command.words]).returncode


def python_of(command: Command) -> list[str]:
    """How its program starts."""
    return [sys.executable, "-m", "metalora.cli" if command.program == "metalora" else command.program]


def show(pieces: dict[str, Piece]) -> None:
    """Every piece with its commands; done ones are marked."""
    for piece in pieces.values():
        print(f"{piece.name}: {piece.about}")
        for command in piece.commands():
            print(f"  {'done' if command.makes.exists() else '    '} {command}")


def parser() -> argparse.ArgumentParser:
    """The flags."""
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("out", type=Path, help="folder for everything")
    found.add_argument("--size", choices=tuple(SIZES), default="miniature", help="how much of it (default miniature)")
    found.add_argument("--pieces", nargs="+", metavar="PIECE", help="only these and what they need; report: the report")
    found.add_argument("--people", type=Path, help="people for stage 1, as .jsonl (default: rendered)")
    found.add_argument("--manifest", type=Path, help="people to measure on (default: the mini benchmark)")
    found.add_argument("--prompts", type=Path, help="prompts for them (default: the mini benchmark's)")
    found.add_argument("--processes", type=int, default=1, help="of one thread each, for stage 1 and benchmarks")
    found.add_argument("--docs", type=Path, help="where the report goes (default OUT/report)")
    found.add_argument("--list", action="store_true", help="only say what would be done")
    return found


if __name__ == "__main__":
    sys.exit(main())
