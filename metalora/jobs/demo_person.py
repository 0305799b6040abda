"""Whose photo the demo uses: for the miniature a rendered person with photos kept aside, for other bases a real one."""

from dataclasses import dataclass
from pathlib import Path

from ..store.images import demo_portrait
from ..store.manifest import read_manifest
from ..store.prompts import SEVERAL, read_prompts

BENCHMARK = Path(__file__).parents[1] / "data" / "mini_benchmark"
NUMBER = 2  # which of the benchmark's people
SHOWN_PROMPTS = 5


@dataclass(frozen=True)
class DemoPerson:
    """A portrait to train on; photos of the same person that nothing is trained on; photos of other people."""

    portrait: Path
    class_name: str
    credit: str
    prompts: tuple[str, ...]
    unseen: tuple[Path, ...] = ()
    strangers: tuple[Path, ...] = ()


def demo_person(backbone: str) -> DemoPerson:
    """The person for a base model: it must know such people."""
    return rendered_person() if backbone == "miniature" else real_person()


def rendered_person() -> DemoPerson:
    """One of the mini benchmark's; the strangers are the others of the same class."""
    people = [person for person in read_manifest(BENCHMARK / "manifest.jsonl", look=False).people if person.held_out]
    person = people[NUMBER]
    prompts = [one for one in read_prompts(BENCHMARK / "prompts.json").prompts if one.part == SEVERAL]
    others = [one for one in people if one is not person and one.class_name == person.class_name]
    return DemoPerson(
        person.reference.path,
        person.class_name,
        f"{person.name} of the mini benchmark, a rendered person (CC0)",
        tuple(prompt.filled(person.class_name) for prompt in prompts[:SHOWN_PROMPTS]),
        tuple(photo.path for photo in person.held_out),
        tuple(photo.path for other in others for photo in other.held_out),
    )


def real_person() -> DemoPerson:
    """Eileen Collins; there is no second photo of her here to compare with."""
    return DemoPerson(
        demo_portrait(),
        "woman",
        "NASA's photograph of the astronaut Eileen Collins (public domain)",
        ("a photo of a woman", "a photo of a woman on a beach", "a painting of a woman", "a woman in a red coat"),
    )
