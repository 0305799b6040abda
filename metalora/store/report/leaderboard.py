"""One ranking over several runs, and only over runs that measured the same thing with the same instruments."""

import re
from collections.abc import Mapping
from dataclasses import replace

from ...config import UserError
from .results import Embedder, Results
from .scores import R_FACESIM, ranked


def check_comparable(runs: Mapping[str, Results]) -> None:
    """Refuse runs that differ in what they measured or with what; every difference in one message."""
    facts = {name: _facts(results) for name, results in runs.items()}
    problems = []
    for fact in next(iter(facts.values())):
        found = {name: value for name, values in facts.items() if (value := values[fact]) is not None}
        if len(set(found.values())) > 1:
            problems.append(f"{fact}: " + ", ".join(f"{_shortened(value)} in {name}" for name, value in found.items()))
    if problems:
        listed = "\n  ".join(problems)
        raise UserError(
            f"These runs cannot be ranked together, because they differ in\n  {listed}\nCompare runs of one manifest, "
            "one file of prompts and one embedder; `metalora benchmark report` shows a run by itself."
        )


def _facts(results: Results) -> dict[str, str | None]:
    """What must be the same; None where a run did without, and so has no score of it to be ranked."""
    people = sorted(person.identity for person in results.people)
    prompts = sorted(prompt.id for prompt in results.prompts)
    gallery = sorted(results.gallery)
    return {
        "the manifest's sha256": results.manifest_sha256,
        "the prompts' sha256": results.prompts_sha256,
        "the face embedder": _identified(results.faces),
        "CLIP": _identified(results.clip),
        "DINO": _identified(results.dino),
        "the people": f"{len(people)} ({', '.join(people)})",
        "the gallery": f"{len(gallery)} ({', '.join(gallery)})",
        "the prompts": f"{len(prompts)} ({', '.join(prompts)})",
    }


def _identified(embedder: Embedder | None) -> str | None:
    return None if embedder is None else f"{embedder.name} {embedder.sha256}"


def _shortened(value: str) -> str:
    """A hash by its first digits, a long list by its beginning."""
    value = re.sub(r"([0-9a-f]{12})[0-9a-f]{52}", r"\1...", value)
    return value if len(value) <= 60 else value[:57] + "..."


def merged(runs: Mapping[str, Results]) -> Results:
    """All variants as if of one run, the highest R-FaceSim first, named by their run; without comparisons."""
    variants = [
        replace(variant, id=f"{name}: {variant.id}", label=f"{variant.label} ({name})")
        for name, results in runs.items()
        for variant in results.variants
    ]
    together = replace(next(iter(runs.values())), variants=variants, comparisons=[])
    order = ranked(together, R_FACESIM.key)
    scored = {variant.id for variant in order}
    return replace(together, variants=[*order, *(variant for variant in variants if variant.id not in scored)])
