"""The page of a report, from `templates/`: one HTML file that needs nothing else and runs nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ...config import UserError
from ..prompts import WORDS, BenchmarkPrompt
from . import charts, pictures, scores
from .pictures import Choice, Thumbnails
from .results import Comparison, Misses, Person, Results
from .scores import ALL, AS_ZERO, FACES, R_FACESIM, Score, present, turned

OPEN_PEOPLE = 3  # the others unfold: a page of 16 people is long on a phone
LISTED_PATHS = 30
MOST_ROWS = 200  # of a table that grows with the square of the variants


def render(template: str, **values: Any) -> str:
    """A template with these values; every text in them is escaped."""
    return ENVIRONMENT.get_template(template).render(values)


def report_page(results: Results, choice: Choice, thumbnails: Thumbnails, held_out: Mapping[str, str]) -> str:
    """The page of one run. `held_out` names, by identity, the thumbnail of one photo that was not trained on."""
    return render(
        "report.html",
        title=f"Likeness of generated faces: {results.name}",
        choice=choice,
        thumbnails=thumbnails,
        held_out=held_out,
        people={person.identity: person for person in results.people},
        prompts={prompt.id: prompt for prompt in results.prompts},
        texts={prompt.id: prompt.text for prompt in results.prompts},
        results=results,
        labels={variant.id: variant.label for variant in results.variants},
    )


@dataclass(frozen=True)
class Column:
    """A score in a table, with images without a face left out or as zero."""

    title: str
    score: Score
    misses: Misses = "left out"


def score_columns(results: Results) -> tuple[list[Column], list[Column]]:
    """The scores of faces, and those of whole images."""
    there = present(results)
    faces = [Column(score.title, score) for score in there if score in FACES]
    if R_FACESIM in there:
        faces.insert(1, Column(AS_ZERO, R_FACESIM, "as zero"))
    return faces, [Column(score.title, score) for score in there if score not in FACES]


def differences(results: Results) -> list[Comparison]:
    """The paired differences, score by score, the larger side first."""
    order = [score.key for score in ALL]
    found = [one if one.mean >= 0 else turned(one) for one in results.comparisons]
    return sorted(found, key=lambda one: order.index(one.score))


def grouped(results: Results, group: str) -> tuple[list[str], list[Score]]:
    """The classes or prompts that the summaries have means of, and of which scores."""
    summaries = [variant.summary[group] for variant in results.variants]
    names = list(dict.fromkeys(name for summary in summaries for name in summary))
    if group == "by_prompt":
        known = {prompt.id for prompt in results.prompts}
        names = [name for name in names if name in known]
    keys = {key for summary in summaries for means in summary.values() for key in means}
    return names, [score for score in ALL if score.key in keys]


def filled(prompt: BenchmarkPrompt, person: Person) -> str:
    """The prompt as this person's images were asked for; as the file has it where that cannot be told."""
    try:
        return prompt.filled(person.class_name) if person.class_name in WORDS else prompt.text
    except UserError:
        return prompt.text


ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
ENVIRONMENT.globals |= {**vars(scores), **vars(charts), **vars(pictures)}  # whatever these define, templates may use
ENVIRONMENT.globals |= {"OPEN_PEOPLE": OPEN_PEOPLE, "LISTED_PATHS": LISTED_PATHS, "MOST_ROWS": MOST_ROWS}
ENVIRONMENT.globals |= {"product": product, "SCORES": {score.key: score for score in ALL}}
ENVIRONMENT.globals |= {each.__name__: each for each in (score_columns, differences, grouped, filled)}
