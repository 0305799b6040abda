"""Damage at random, the same in every run, and readers that must give a value or a sentence, soon and in little memory.

METALORA_FUZZ=full tries as many files as docs/trust.md says, METALORA_FUZZ=N so many of each, and no value a few.
"""

import os
import random
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from metalora.config import UserError

FULL = {
    "LoRAs": 20_000,
    "photos": 20_000,
    "prompts": 5_000,
    "manifests": 5_000,
    "plans": 2_000,
    "results": 2_000,
    "checkpoints": 2_000,
    "cache entries": 2_000,
}
FEW = 60
SLOWEST, MOST_MEMORY = 5.0, 1_000_000  # seconds of one file; kB
VALUES = [None, True, 0, -1, 1e308, "", "\0", "\ud800", "a" * 300, "../x", "{class.x}", "{", [], [[]], {}, {"a": {}}]


class Fuzz:
    """Goes round as often as is asked; at the end prints what was found, and fails if it was slow or large."""

    def __init__(self, what: str, few: int = FEW):
        asked = os.environ.get("METALORA_FUZZ", str(few))
        self.what, self.count = what, FULL[what] if asked == "full" else int(asked)
        self.index, self.read, self.refused, self.slowest = 0, 0, 0, 0.0

    def __iter__(self) -> Iterator[int]:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # of whatever else this process has tested
        while self.index < self.count:
            yield self.index
            self.index += 1
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print(
            f"\n{self.count} damaged {self.what}: {self.read} times read, {self.refused} refused, "
            f"slowest {self.slowest:.2f} s, {memory / 1000:.0f} MB more",
            flush=True,
        )
        assert memory < MOST_MEMORY

    def attempt(self, reader: Callable[[Path], object], path: Path, data: bytes | None = None) -> bool:
        """Whether it is read; False where a UserError says why not. Anything else fails the test, by its number."""
        if data is not None:
            path.write_bytes(data)
        start = time.process_time()
        try:
            reader(path)
            self.read += 1
            return True
        except UserError:
            self.refused += 1
            return False
        except Exception as error:
            raise AssertionError(f"{self.what}, number {self.index}: {error!r}") from error
        finally:
            took = time.process_time() - start
            self.slowest = max(self.slowest, took)
            assert took < SLOWEST, (self.what, self.index)


def damaged(data: bytes, draw: random.Random) -> bytes:
    """The bytes with a few of them changed, cut, doubled or put elsewhere; more often near the beginning."""
    changed = bytearray(data)
    for _ in range(draw.choice([1, 1, 2, 4, 16])):
        place = int(len(changed) * draw.random() ** draw.choice([1, 3, 6])) if changed else 0
        what = draw.randrange(5)
        if what == 0:
            changed[place : place + 1] = bytes([draw.randrange(256)])
        elif what == 1:
            changed[place : place + 4] = draw.choice([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f"])
        elif what == 2:
            del changed[place : place + draw.choice([1, 8, 200, len(changed)])]
        elif what == 3:
            changed[place:place] = changed[place : place + draw.choice([1, 8, 200])]
        else:
            changed[place : place + 1] = bytes([changed[place] ^ (1 << draw.randrange(8))]) if changed[place:] else b"x"
    return bytes(changed)


def other(value: object, draw: random.Random) -> object:
    """A JSON value with one part of it replaced, removed or of another type."""
    if isinstance(value, dict) and value and draw.random() < 0.85:
        key = draw.choice(list(value))
        changed = dict(value)
        if draw.random() < 0.15:
            del changed[key]
            changed[draw.choice([str(key) + "x", "id", "tags", ""])] = value[key]
        else:
            changed[key] = other(value[key], draw)
        return changed
    if isinstance(value, list) and value and draw.random() < 0.85:
        place = draw.randrange(len(value))
        return [*value[:place], other(value[place], draw), *value[place + 1 :]]
    return draw.choice(VALUES)
