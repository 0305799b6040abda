"""A benchmark's prompts: what each part asks for, of which class, and filled in for a person.

A file is JSON with the parts as keys. `several-photos` (the paper: unsplash) is a list of prompts for every class;
`single-photo` (the paper: ffhq) a list for each class and group. A prompt is a text, or an object with `id`, `prompt`,
and, as `asks`, the attributes it asks for. `tags` maps a tag to the texts that have it: `age` marks a prompt that asks
for another age, which a run may leave out. `alternatives` may map an asked attribute to all that it could be, each with
the phrase for it: {"background": {"green room": "green room background", ...}}. Whether an image shows
what was asked is then read by choosing among these phrases.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..config import UserError, fill_in
from ..config_benchmark import PARTS
from .files import digest
from .text import decoded, parse_json, problems_of_names

SEVERAL, SINGLE = PARTS
PAPER_PARTS = {"unsplash": SEVERAL, "ffhq": SINGLE}
SHAPES = {SEVERAL: "be a list of prompts", SINGLE: "map classes to groups, and each group to a list of prompts"}
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
    if not isinstance(record, dict):
        raise UserError(f"{path} must be a JSON object with the parts {SEVERAL} and {SINGLE}.")
    prompts, problems = parsed(record)
    alternatives = record.get("alternatives", {})
    problems += problems_of_alternatives(alternatives, prompts)
    if not prompts and not problems:
        problems = [f"it has no prompt: neither {SEVERAL} (or unsplash) nor {SINGLE} (or ffhq)"]
    if problems:
        raise UserError(f"{path} has {len(problems)} problems: {'; '.join(problems)}.")
    return Prompts(path, digest(data), prompts, alternatives)


def problems_of_alternatives(given: Any, prompts: Sequence[BenchmarkPrompt]) -> list[str]:
    """What is wrong with them; every value that a prompt asks for must be among its attribute's."""
    if not isinstance(given, dict):
        return [f"alternatives must be an object, got {type(given).__name__}"]
    problems = []
    for attribute, phrases in given.items():
        if not (isinstance(phrases, dict) and all(isinstance(p, str) and p for p in phrases.values())):
            problems.append(f"alternatives of {attribute} must map values to phrases")
            continue
        if len(set(phrases.values())) < max(2, len(phrases)):
            problems.append(f"alternatives of {attribute} must be at least two different phrases")
        asked = {prompt.asks[attribute]: prompt.id for prompt in prompts if attribute in prompt.asks}
        problems += [
            f"{name} asks for the {attribute} {value!r}, which is not among its alternatives"
            for value, name in asked.items()
            if value not in phrases
        ]
    return problems


def parsed(record: dict[str, Any]) -> tuple[list[BenchmarkPrompt], list[str]]:
    """(prompts, problems) of the file's object."""
    tags_of: dict[str, list[str]] = {}
    prompts: list[BenchmarkPrompt] = []
    problems: list[str] = []
    tags = record.get("tags", {})
    if not isinstance(tags, dict) or not all(_is_texts(texts) for texts in tags.values()):
        problems.append("tags must map each tag to a list of texts")
        tags = {}
    for tag, texts in tags.items():
        for text in texts:
            tags_of.setdefault(text, []).append(tag)
    problems += [
        f"unknown key {key!r}"
        for key in record
        if key not in {"source", "tags", "alternatives", SEVERAL, SINGLE, *PAPER_PARTS}
    ]
    for key, value in record.items():
        part = PAPER_PARTS.get(key, key)
        if part not in (SEVERAL, SINGLE):
            continue
        lists = groups(part, value)
        if lists is None:
            problems.append(f"{key} must {SHAPES[part]}")
            continue
        for (class_name, group), entries in lists.items():
            name = "-".join(word for word in (key, class_name, group) if word)
            for number, entry in enumerate(entries, 1):
                try:
                    prompts.append(one_prompt(entry, f"{name}-{number:02d}", part, class_name, group, tags_of))
                except UserError as error:
                    problems.append(str(error).rstrip("."))
    ids = [prompt.id for prompt in prompts]
    problems += [f"the id {name} is there {ids.count(name)} times" for name in sorted(set(ids)) if ids.count(name) > 1]
    problems += problems_of_names(ids, "the id")
    unused = set(tags_of) - {prompt.text for prompt in prompts}
    problems += [f"a tag names a prompt that is not there: {text!r}" for text in sorted(unused)]
    return prompts, problems


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def groups(part: str, value: Any) -> dict[tuple[str | None, str | None], list[Any]] | None:
    """(class, group) -> entries; None where a part has another shape."""
    by_class = {None: {None: value}} if part == SEVERAL else value
    if not isinstance(by_class, dict) or not all(isinstance(by_group, dict) for by_group in by_class.values()):
        return None
    found = {(name, group): entries for name, by_group in by_class.items() for group, entries in by_group.items()}
    return found if all(isinstance(entries, list) for entries in found.values()) else None


def one_prompt(
    entry: Any, name: str, part: str, class_name: str | None, group: str | None, tags_of: dict[str, list[str]]
) -> BenchmarkPrompt:
    """A prompt from its text or object, checked."""
    given = {"prompt": entry} if isinstance(entry, str) else entry
    if not isinstance(given, dict) or not isinstance(given.get("prompt"), str):
        raise UserError(f"{name} is neither a text nor an object with a prompt")
    if unknown := given.keys() - {"id", "prompt", "asks"}:
        raise UserError(f"{name} has the unknown fields {', '.join(sorted(unknown))}")
    if class_name is not None and class_name not in WORDS:
        raise UserError(f"{name} is for the class {class_name!r}, not one of {', '.join(WORDS)}")
    asks, text = given.get("asks", {}), given["prompt"]
    if not isinstance(asks, dict) or not all(isinstance(value, str) for value in asks.values()):
        raise UserError(f"{name} has asks that are not an object of texts: {asks!r}")
    if not isinstance(given.get("id", name), str) or not given.get("id", name):
        raise UserError(f"{name} has the id {given['id']!r}, which is not a text")
    prompt = BenchmarkPrompt(given.get("id", name), part, class_name, group, text, tuple(tags_of.get(text, ())), asks)
    prompt.filled(class_name or "person")
    return prompt


def without(prompts: Sequence[BenchmarkPrompt], tags: Sequence[str]) -> list[BenchmarkPrompt]:
    """The prompts that have none of these tags; a tag that no prompt has is refused."""
    known = {tag for prompt in prompts for tag in prompt.tags}
    if absent := sorted(set(tags) - known):
        raise UserError(f"No prompt has the tag {', '.join(absent)}; there are: {', '.join(sorted(known)) or 'none'}.")
    return [prompt for prompt in prompts if not set(tags) & set(prompt.tags)]
