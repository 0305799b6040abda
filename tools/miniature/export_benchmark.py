"""Render the mini benchmark and the demo's portraits, and write what ships: photos, manifest, prompts.

python -m tools.miniature.export_benchmark --out metalora/data
python -m tools.miniature.export_benchmark --validation 16 --out data/miniature    # for choosing settings
python -m tools.miniature.export_benchmark --claim --out data/miniature            # 48 people with held-out photos

A prompt is exactly what `captions.describe` says of its attributes, with `{class}` in the place of the kind, so that
what it asks for can be looked for in an image.
"""

import argparse
import itertools
import json
import pathlib
from dataclasses import dataclass

import numpy as np

from metalora.store.files import digest, write_bytes

from .captions import EXPRESSIONS, GARMENTS, LIGHTS, PHRASES, PLACES, TURNS, Attributes, describe
from .looks import BEARDS, COLOURS, HAIR_COLOURS
from .people import KINDS, SPLITS, WORLD_SEED, Person, person
from .photo import Photo, photo
from .photos import picture_file
from .render import HEAD, one_thread, renderer_of

Parts = dict[str, tuple[str, ...]]  # a part of the benchmark -> the splits of its people

PARTS: Parts = {"several-photos": ("test",), "single-photo": ("single",)}
VALIDATION: Parts = {"several-photos": ("validation",)}  # people on whom settings may be chosen; does not ship
CLAIM: Parts = {"several-photos": ("test", "claim")}  # the benchmark's people with held-out photos and more of the kind
PORTRAITS = (600_012, 600_001, 600_020, 600_009, 600_010, 600_017)  # the demo's people, in no split; picked by eye
PORTRAIT_SIZE = 256  # pixels; larger than the photos, so that crops of its face are still sharp
QUALITY = 92
SHIPPED = "mini_benchmark"
SOURCE = "rendered by tools/miniature, seed {seed}, person {number}, photo {index}"
AUTHOR, LICENCE = "the authors of Meta-LoRA for ComfyUI", "CC0-1.0"

EACH = 10  # prompts of a group; as many as there are colours, so every colour is asked for once
STYLES = {"woman": ("bobbed", "long", "wavy", "tied"), "man": ("cropped", "short", "curly")}  # everyday ones
READ = ("background", "clothes")  # what the small CLIP reads from a phrase alone (check_clip)

Prompt = dict[str, str | Attributes]


@dataclass(frozen=True)
class Entry:
    part: str
    role: str  # "reference" or "held-out"
    person: Person
    index: int  # of the photo: person and index make it again
    photo: Photo

    @property
    def file(self) -> str:
        return f"photos/{self.person.number}-{self.index}.jpg"


def main() -> None:
    arguments = parser().parse_args()
    one_thread()
    name, chosen = asked_for(arguments)
    benchmark, rows = arguments.out / name, []
    for entry in chosen:
        data = rendered(arguments.cache, entry.person, entry.photo)
        write_bytes(benchmark / entry.file, data)
        rows.append(row(entry, data))
    write_bytes(benchmark / "manifest.jsonl", "".join(json.dumps(one) + "\n" for one in rows).encode())
    write_bytes(benchmark / "prompts.json", (json.dumps(prompts(), indent=1) + "\n").encode())
    if name == SHIPPED:
        for at, who in enumerate(map(person, PORTRAITS)):
            portrait = rendered(arguments.cache, who, photo(who, reference_index(who)), PORTRAIT_SIZE)
            write_bytes(arguments.out / "portraits" / f"{who.kind}-{at // 2 + 1}.jpg", portrait)
    print(f"wrote {len(rows)} photos of {len({one['identity'] for one in rows})} people to {benchmark}")


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("metalora/data"))
    others = parser.add_mutually_exclusive_group()
    others.add_argument("--validation", type=int, metavar="PEOPLE", help="instead: so many people of `validation`")
    others.add_argument("--claim", action="store_true", help="instead: the people of `test` and of `claim`")
    parser.add_argument("--cache", type=pathlib.Path, default=HEAD, help="prepared mesh")
    return parser


def asked_for(arguments: argparse.Namespace) -> tuple[str, list[Entry]]:
    """The folder's name, and the photos in it."""
    if arguments.validation:
        return "validation_benchmark", entries(VALIDATION, arguments.validation)
    if arguments.claim:
        return "claim_benchmark", entries(CLAIM)
    return SHIPPED, entries(PARTS)


def entries(parts: Parts = PARTS, most: int | None = None) -> list[Entry]:
    """Every photo of the benchmark: a person's reference first, then as many others as the split says.

    `most` people of each split, if not all of them.
    """
    found = []
    for part, split in ((part, SPLITS[name]) for part, names in parts.items() for name in names):
        for number in split.numbers[:most]:
            who = person(number)
            reference = reference_index(who)
            others = [index for index in range(split.photos_of(number)) if index != reference]
            others = others[: split.photos_of(number) - 1]
            found.append(Entry(part, "reference", who, reference, photo(who, reference)))
            found += [Entry(part, "held-out", who, index, photo(who, index)) for index in others]
    return found


def reference_index(who: Person) -> int:
    """The first of a person's photos that one would send to a stranger: from the front, neutral, evenly lit."""
    said = (photo(who, index).attributes for index in itertools.count())
    asked = ("front", "neutral")
    return next(
        at for at, one in enumerate(said) if (one["turn"], one["expression"]) == asked and one["light"] != "side"
    )


def rendered(cache: pathlib.Path, who: Person, one: Photo, size: int = 128) -> bytes:
    """A photo as a JPEG file."""
    renderer = renderer_of(cache, size)
    return picture_file(renderer.render(who, renderer.figure(who), one), QUALITY)


def row(entry: Entry, data: bytes) -> dict:
    """The manifest's line of a photo."""
    return {
        "identity": f"{entry.person.kind}-{entry.person.number}",
        "number": entry.person.number,
        "part": entry.part,
        "role": entry.role,
        "path": entry.file,
        "sha256": digest(data),
        "source": SOURCE.format(seed=WORLD_SEED, number=entry.person.number, index=entry.index),
        "author": AUTHOR,
        "licence": LICENCE,
        "class": entry.person.kind,
        "attributes": entry.photo.attributes,
        "caption": describe(entry.photo.attributes),
    }


def prompts() -> dict:
    """Those for people with several photos, and two groups for each class of people with one."""
    groups = {"several-photos": _group("several", _moderate(0)), "single-photo": {}}
    groups["alternatives"] = {name: PHRASES[name] for name in READ}
    for at, kind in enumerate(KINDS):
        groups["single-photo"][kind] = {
            "recontextualization": _group(f"{kind}-recontextualization", _moderate(1 + at)),
            "harder": _group(f"{kind}-harder", _harder(1 + at, kind)),
        }
    return groups


def _group(name: str, asked: list[Attributes]) -> list[Prompt]:
    return [{"id": f"{name}-{index:02d}", "prompt": _template(one), "asks": one} for index, one in enumerate(asked, 1)]


def _template(asked: Attributes) -> str:
    return describe({"kind": KINDS[0]} | asked).replace(f"a photo of a {KINDS[0]}", "a photo of a {class}")


def _moderate(group: int) -> list[Attributes]:
    """Clothes, background, and in turn an expression, a turn of the head, or a light."""
    third = ("expression", "turn", "light")
    everything = _everything(np.random.default_rng([WORLD_SEED, group, 1]))
    return [{name: one[name] for name in (third[at % 3], "clothes", "background")} for at, one in enumerate(everything)]


def _harder(group: int, kind: str) -> list[Attributes]:
    """All circumstances at once; every other prompt also asks for other hair, and of men for a beard or none."""
    rng = np.random.default_rng([WORLD_SEED, group, 2])
    everything = _everything(rng)
    for at in range(0, EACH, 2):
        other = {"hair": f"{rng.choice(STYLES[kind])} {rng.choice(list(HAIR_COLOURS))}"}
        if kind == "man":
            other["beard"] = str(rng.choice(list(BEARDS)))
        everything[at] = other | everything[at]
    return everything


def _everything(rng: np.random.Generator) -> list[Attributes]:
    """All circumstances, each value as often as any other; clothes are never of the background's colour."""
    wall = rng.permutation(list(COLOURS))
    cloth = np.roll(wall, 1 + rng.integers(EACH - 1))
    places, garments = _evenly(rng, PLACES), _evenly(rng, GARMENTS)
    expressions, turns, lights = _evenly(rng, EXPRESSIONS), _evenly(rng, TURNS), _evenly(rng, LIGHTS)
    return [
        {
            "expression": expressions[at],
            "turn": turns[at],
            "clothes": f"{cloth[at]} {garments[at]}",
            "background": f"{wall[at]} {places[at]}",
            "light": lights[at],
        }
        for at in range(EACH)
    ]


def _evenly(rng: np.random.Generator, values: tuple[str, ...]) -> list[str]:
    repeated = (values * EACH)[:EACH]
    return [str(value) for value in rng.permutation(repeated)]


if __name__ == "__main__":
    main()
