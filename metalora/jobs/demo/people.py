"""Whom the demo learns: for the miniature rendered people with photos kept aside, for other bases one real person."""

from dataclasses import dataclass
from pathlib import Path

from ...config import UserError
from ...store.images import demo_portrait
from ...store.manifest import read_manifest
from ...store.prompts import SEVERAL, read_prompts

BENCHMARK = Path(__file__).parents[2] / "data" / "mini_benchmark"
PEOPLE = 3  # unless another number is asked for
PROMPTS = 2  # of each rendered person


@dataclass(frozen=True)
class DemoPerson:
    """A photo to learn from; photos of the same person that nothing is learned from; photos of other people."""

    name: str
    portrait: Path
    class_name: str
    credit: str
    prompts: tuple[str, ...]
    seed: int  # of the images' noise
    unseen: tuple[Path, ...] = ()
    strangers: tuple[Path, ...] = ()


def demo_people(preset: str, number: int | None = None) -> list[DemoPerson]:
    """The people for a base model, which must know such people."""
    if preset == "miniature":
        return rendered_people(PEOPLE if number is None else number)
    if number not in (None, 1):
        raise UserError(f"--people {number} is for the miniature: for other base models one portrait comes along.")
    return [real_person()]


def rendered_people(number: int) -> list[DemoPerson]:
    """The first of the mini benchmark's that have held-out photos, with other prompts and noise for each."""
    people = [person for person in read_manifest(BENCHMARK / "manifest.jsonl", look=False).people if person.held_out]
    if not 1 <= number <= len(people):
        raise UserError(f"--people {number}: the mini benchmark has 1 to {len(people)} people with photos kept aside.")
    asked = [prompt for prompt in read_prompts(BENCHMARK / "prompts.json").prompts if prompt.part == SEVERAL]
    found = []
    for index, person in enumerate(people[:number]):
        others = [one for one in people if one is not person and one.class_name == person.class_name]
        prompts = [asked[(index * PROMPTS + k) % len(asked)] for k in range(PROMPTS)]
        found.append(
            DemoPerson(
                person.name,
                person.reference.path,
                person.class_name,
                "rendered people of the mini benchmark (CC0)",
                tuple(prompt.filled(person.class_name) for prompt in prompts),
                index,
                tuple(photo.path for photo in person.held_out),
                tuple(photo.path for other in others for photo in other.held_out),
            )
        )
    return found


def real_person() -> DemoPerson:
    """Eileen Collins; there is no second photo of her here to compare with."""
    return DemoPerson(
        "eileen-collins",
        demo_portrait(),
        "woman",
        "NASA's photograph of the astronaut Eileen Collins (public domain)",
        ("a photo of a woman on a beach", "a painting of a woman", "a woman in a red coat", "a photo of a woman"),
        0,
    )
