"""The mini benchmark's prompts: recombined attributes, so that what a prompt asks for can be looked for in an image.

A prompt is exactly what `captions.describe` says of its attributes, with `{class}` in the place of the kind.
"""

import numpy as np

from .captions import EXPRESSIONS, GARMENTS, LIGHTS, PHRASES, PLACES, TURNS, Attributes, describe
from .looks import BEARDS
from .palette import COLOURS, HAIR_COLOURS
from .people import KINDS, WORLD_SEED

EACH = 10  # prompts of a group; as many as there are colours, so every colour is asked for once
STYLES = {"woman": ("bobbed", "long", "wavy", "tied"), "man": ("cropped", "short", "curly")}  # everyday ones

READ = ("background", "clothes")  # what the small CLIP reads from a phrase alone (check_clip)

Prompt = dict[str, str | Attributes]


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
            other["beard"] = str(rng.choice(BEARDS))
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
