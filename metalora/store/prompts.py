"""A benchmark's prompts: what each part asks for, of which class, and filled in for a person.

A file is JSON with the parts as keys. `several-photos` (the paper: unsplash) is a list of prompts for every class;
`single-photo` (the paper: ffhq) a list for each class and group. A prompt is a text, or an object with `id`, `prompt`,
and, as `asks`, the attributes it asks for. `tags` maps a tag to the texts that have it: `age` marks a prompt that asks
for another age, which a run may leave out. `alternatives` may map an asked attribute to all that it could be, each with
the phrase for it: {"background": {"green room": "green room background", ...}}. Whether an image shows
what was asked is then read by choosing among these phrases. `data/prompts.schema.json` has all of it.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..config import UserError, fill_in
from ..config_benchmark import PARTS
from .files import digest
from .text import decoded, parse_json, problems_by_schema, problems_of_names, refuse

SEVERAL, SINGLE = PARTS
KEYS = {SEVERAL: SEVERAL, SINGLE: SINGLE, "unsplash": SEVERAL, "ffhq": SINGLE}  # of a file, and their parts
# What stands for {possessive} and {pronoun}; the keys are the classes a benchmark knows.
WORDS = {
    "woman": ("her", "she"),
    "man": ("his", "he"),
    "girl": ("her", "she"),
    "boy": ("his", "he"),
    "person": ("their", "they"),
    "cat": ("its", "it"),
    "dog": ("its", "it"),
}


@dataclass(frozen=True)
class BenchmarkPrompt:
    """One prompt; `text` as the file has it."""

    id: str
    part: str
    class_name: str | None  # None: for every class
    group: str | None
    text: str
    tags: tuple[str, ...] = ()
    asks: dict[str, str] = field(default_factory=dict)

    def filled(self, class_name: str) -> str:
        """The prompt for a person of this class."""
        possessive, pronoun = WORDS[class_name]
        words = {"class": class_name, "subject": class_name, "possessive": possessive, "pronoun": pronoun}
        try:
            return fill_in(self.text, words)
        except ValueError as error:
            raise UserError(
                f"Prompt {self.id} cannot be filled in ({error}): {self.text!r}. It may hold {{class}} or "
                "{subject}, {possessive} and {pronoun}."
            ) from error

    def asked_of(self, class_name: str, part: str) -> bool:
        """Whether people of this class and part get it."""
        return self.part == part and self.class_name in (None, class_name)


@dataclass(frozen=True)
class Prompts:
    """A whole file."""

    path: Path
    sha256: str
    prompts: list[BenchmarkPrompt]
    alternatives: dict[str, dict[str, str]] = field(default_factory=dict)  # attribute -> value -> phrase


def read_prompts(path: Path) -> Prompts:
    """The prompts of a file, each fillable and with its own id; every problem in one message."""
    try:
        data = path.read_bytes()
        record = parse_json(decoded(data, f"The prompts {path}"))
    except (OSError, ValueError) as error:
        raise UserError(f"The prompts {path} cannot be read as JSON: {error}") from error
    refuse(str(path), problems_by_schema(record, "prompts"))
    prompts, alternatives = parsed(record), record.get("alternatives", {})
    problems = [*problems_of_prompts(prompts, record), *problems_of_alternatives(alternatives, prompts)]
    refuse(str(path), problems)
    return Prompts(path, digest(data), prompts, alternatives)


def parsed(record: dict[str, Any]) -> list[BenchmarkPrompt]:
    """The prompts of a file's object, which has the right shape."""
    tags_of: dict[str, list[str]] = {}
    for tag, texts in record.get("tags", {}).items():
        for text in texts:
            tags_of.setdefault(text, []).append(tag)
    prompts = []
    for key, class_name, group, entries in lists_of(record):
        name = "-".join(word for word in (key, class_name, group) if word)
        for number, entry in enumerate(entries, 1):
            given: dict[str, Any] = {"prompt": entry} if isinstance(entry, str) else entry
            text, own_id = given["prompt"], given.get("id", f"{name}-{number:02d}")
            tags = tuple(tags_of.get(text, ()))
            prompts.append(BenchmarkPrompt(own_id, KEYS[key], class_name, group, text, tags, given.get("asks", {})))
    return prompts


def lists_of(record: dict[str, Any]) -> Iterator[tuple[str, str | None, str | None, list[Any]]]:
    """(key, class, group, entries) of each list of prompts."""
    for key in (key for key in record if key in KEYS):
        for class_name, by_group in ({None: {None: record[key]}} if KEYS[key] == SEVERAL else record[key]).items():
            for group, entries in by_group.items():
                yield key, class_name, group, entries


def problems_of_prompts(prompts: Sequence[BenchmarkPrompt], record: dict[str, Any]) -> Iterator[str]:
    """What the schema cannot say of them: each can be filled in, has a name of its own, and every tag has a prompt."""
    if not prompts:
        yield f"it has no prompt: neither {SEVERAL} (or unsplash) nor {SINGLE} (or ffhq)"
    for prompt in prompts:
        if prompt.class_name not in (None, *WORDS):
            yield f"{prompt.id} is for the class {prompt.class_name!r}, not one of {', '.join(WORDS)}"
            continue
        try:
            prompt.filled(prompt.class_name or "person")
        except UserError as error:
            yield str(error).rstrip(".")
    ids = Counter(prompt.id for prompt in prompts)
    yield from (f"the id {name} is there {times} times" for name, times in ids.items() if times > 1)
    yield from problems_of_names(ids, "the id")
    tagged = {text for texts in record.get("tags", {}).values() for text in texts}
    for text in sorted(tagged - {prompt.text for prompt in prompts}):
        yield f"a tag names a prompt that is not there: {text!r}"


def problems_of_alternatives(
    alternatives: dict[str, dict[str, str]], prompts: Sequence[BenchmarkPrompt]
) -> Iterator[str]:
    """Every value that a prompt asks for must be among its attribute's."""
    for attribute, phrases in alternatives.items():
        if len(set(phrases.values())) < max(2, len(phrases)):
            yield f"alternatives of {attribute} must be at least two different phrases"
        for prompt in prompts:
            if (value := prompt.asks.get(attribute)) not in (None, *phrases):
                yield f"{prompt.id} asks for the {attribute} {value!r}, which is not among its alternatives"


def without(prompts: Sequence[BenchmarkPrompt], tags: Sequence[str]) -> list[BenchmarkPrompt]:
    """The prompts that have none of these tags; a tag that no prompt has is refused."""
    known = {tag for prompt in prompts for tag in prompt.tags}
    if absent := sorted(set(tags) - known):
        raise UserError(f"No prompt has the tag {', '.join(absent)}; there are: {', '.join(sorted(known)) or 'none'}.")
    return [prompt for prompt in prompts if not set(tags) & set(prompt.tags)]
