"""A Meta-Down whose rows are the longer, the more of a layer's gradient is the person's: does it matter who is quick?

    metalora meta-down compare woman.safetensors --class woman --people people.jsonl --background-weight 0.1 \\
        --by-site w.csv
    python -m bench.site_lengths woman.safetensors w.csv --out theirs.safetensors
    python -m bench.site_lengths woman.safetensors w.csv --out shuffled.safetensors --shuffled 0

Adam's steps have one size, so that a layer learns at the pace of its row lengths. They become proportional to what is
the person's at the layer, with the mean square that they had; shuffled, the same lengths lie at other layers.
"""

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from metalora.config import UserError
from metalora.method.flow import generator_of
from metalora.store import files

LEAST = 0.01  # of what a layer holds: a person's share below this is chance


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the Meta-Down with other lengths."""
    args = parser().parse_args(arguments)
    try:
        tensors, facts = files.read(args.file, ("meta-down",))
        downs = [name for name in tensors if name.endswith(".down")]
        shares = shares_of(args.by_site, str(args.file))
        factors = torch.tensor([max(LEAST, shares.get(name.removesuffix(".down"), LEAST)) for name in downs])
        factors /= factors.square().mean().sqrt()
        if args.shuffled is not None:
            factors = factors[torch.randperm(len(factors), generator=generator_of(args.shuffled, "site lengths"))]
        for name, factor in zip(downs, factors.tolist(), strict=True):
            tensors[name] = tensors[name] * factor
        files.write(args.out, tensors, "meta-down", facts)
    except UserError as error:
        print(f"site_lengths: {error}", file=sys.stderr)
        return 1
    print(f"wrote {args.out}: lengths of {factors.min():.2f} to {factors.max():.2f} of what they were")
    return 0


def shares_of(table: Path, meta_down: str) -> dict[str, float]:
    """Site -> what of the gradient there is the person's."""
    try:
        with table.open(newline="") as lines:
            shares = {row["site"]: float(row["own"]) for row in csv.DictReader(lines) if row["meta_down"] == meta_down}
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f"{table} is no table of `metalora meta-down compare --by-site` ({error!r}).") from error
    if not shares:
        raise UserError(f"{table} has no row for {meta_down}: name the file as `meta-down compare` was told it.")
    return shares


def parser() -> argparse.ArgumentParser:
    """The flags."""
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("file", type=Path, help="a Meta-Down")
    found.add_argument("by_site", type=Path, metavar="CSV", help="what --by-site wrote of it")
    found.add_argument("--out", type=Path, required=True, help="the Meta-Down to write")
    found.add_argument("--shuffled", type=int, metavar="SEED", help="the same lengths at other layers: the control")
    return found


if __name__ == "__main__":
    sys.exit(main())
