"""Draw how a Meta-Down grows with its people and its steps, from what the files of several say of themselves.

    python -m tools.miniature.growth data/miniature/grown/*.safetensors --plot docs/growth.png

Every run has kept the same people out of training and measured the loss on their other photos, with heads from their
own face, from another's, and without heads. A gap between the first two is what a Meta-Down knows of faces.
"""

import argparse
import json
from pathlib import Path

from metalora.jobs.plots import growth_plot
from metalora.store.files import read, write_bytes


def main() -> None:
    """Print a table, and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, metavar="META_DOWN")
    parser.add_argument("--plot", type=Path, metavar="PNG")
    arguments = parser.parse_args()
    print("people   steps   own face   another's   no heads")
    runs = sorted(measured(path) for path in arguments.files)
    for people, steps, own, another, none in runs:
        print(f"{people:6}  {steps:6}     {own:.4f}      {another:.4f}     {none:.4f}")
    if arguments.plot:
        write_bytes(arguments.plot, growth_plot(runs))


def measured(path: Path) -> tuple[int, int, float, float, float]:
    """(people, steps, loss with heads from their own face, from another's, without) as its metadata say."""
    _, metadata = read(path, ("meta-down",))
    unseen = json.loads(metadata["unseen"])
    own, another, none = (float(unseen[name]) for name in ("own face", "another face", "no heads"))
    return int(metadata["people"]), int(metadata["steps"]), own, another, none


if __name__ == "__main__":
    main()
