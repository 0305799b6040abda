"""results.json from the files of a run: the same bytes however the work was cut, stopped or dealt."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ...store import files
from .layout import Layout
from .plan import Plan, PlannedPerson, PlannedPrompt, Variant, filled_texts
from .scores import RealFaces, Scorer, read_scores
from .summary import comparisons, genuine_and_impostor, summary

FORMAT = "metalora-results-2"


def write_results(
    plan: Plan,
    layout: Layout,
    variants: Sequence[Variant],
    real: Mapping[str, RealFaces],
    scorer: Scorer,
) -> None:
    """Merge everyone's scores."""
    ceiling, floor = genuine_and_impostor(real)
    compared = {identity for identity, faces in real.items() if len(faces.held_out)}
    rows = [variant_record(variant, plan, layout, compared, floor, ceiling) for variant in variants]
    clip = scorer.pictures.clip
    record = {
        "format": FORMAT,
        "benchmark": benchmark_record(plan, real),
        "backbone": plan.backbone,
        "sampling": plan.sampling,
        "seeds": plan.seeds,
        "embedders": {
            "faces": {
                "name": scorer.analyser.name,
                "sha256": scorer.analyser.digest,
                "licence": scorer.analyser.licence,
                "genuine_mean": ceiling,
                "impostor_mean": floor,
                "detected": sum(len(faces.all()) for faces in real.values()),
            },
            "clip": {"name": clip.name, "sha256": clip.digest, "truncated": clip.truncated(filled_texts(plan.prompts))}
            if clip
            else None,
        },
        "variants": rows,
        "comparisons": comparisons(rows, compared),
    }
    text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    files.write_bytes(layout.results, text.encode())


def benchmark_record(plan: Plan, real: Mapping[str, RealFaces]) -> dict[str, Any]:
    """Whom and what the benchmark asks for."""
    people = [picked(person, "identity", "class", "part", "reference") for person in plan.people]
    return {
        "name": plan.name,
        "manifest_sha256": plan.manifest_sha256,
        "prompts_sha256": plan.prompts_sha256,
        "identities": [{**person, "held_out": len(real[person["identity"]].held_out)} for person in people],
        "gallery": plan.gallery,
        "alternatives": {attribute: len(phrases) for attribute, phrases in plan.alternatives.items()},
        "prompts": [picked(one, "id", "part", "class", "group", "text", "tags", "asks") for one in plan.prompts],
    }


def picked(planned: PlannedPerson | PlannedPrompt, *names: str) -> dict[str, Any]:
    """Some of its fields, as JSON calls them: `class` is a word of Python."""
    return {name: getattr(planned, "class_name" if name == "class" else name) for name in names}


def variant_record(
    variant: Variant, plan: Plan, layout: Layout, compared: set[str], floor: float | None, ceiling: float | None
) -> dict[str, Any]:
    """One variant with all its images and figures."""
    scores = [read_scores(layout.scores(variant, person)) for person in plan.people]
    images = [image for score in scores for image in score["images"]]
    settings, loras = {}, {}
    if variant.steps is not None:
        settings = {**plan.training, **plan.crops}
        if variant.method in plan.learning_rates:
            settings["learning_rate"] = plan.learning_rates[variant.method]
        loras = {p.identity: files.digest(layout.lora(variant, p).read_bytes()) for p in plan.people}
    downs = {class_name: down["sha256"] for class_name, down in plan.meta_downs.items()}
    return {
        "id": variant.id,
        "method": variant.method,
        "label": variant.label,
        "steps": variant.steps,
        "rank": variant.rank,
        "settings": settings,
        "meta_down_sha256": downs if variant.method == "meta-lora" else None,
        "lora_sha256": loras,
        "images": images,
        "missing": [path for score in scores for path in score["missing"]],
        "summary": summary(images, plan.people, compared, floor, ceiling),
    }
