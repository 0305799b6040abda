"""results.json from the files of a run, with every figure and its interval.

The same bytes however the work was cut, stopped or dealt: pure functions of the scores of images.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from itertools import combinations
from statistics import mean
from typing import Any

import torch

from ...config import FEWEST_PEOPLE
from ...measure.intervals import bootstrap
from ...measure.similarity import MISSES, ImageScore, Misses, Score, cosines, identity_means, means_of, position
from ...store import files
from .plan import Layout, Plan, PlannedPerson, PlannedPrompt, Variant, filled_texts
from .scores import RealFaces, Scorer, read_scores

FORMAT = "metalora-results-2"
Record = dict[str, Any]
FACE_SCORES: dict[str, Score] = {"r_facesim": "held_out", "facesim": "reference", "copying": "copying"}
COUNTED = ("identified",)  # of faces too, but an image without one counts
PICTURE_SCORES = ("clip_t", "clip_i")
SCORES = (*FACE_SCORES, *COUNTED, *PICTURE_SCORES)


def write_results(scorer: Scorer) -> None:
    """Merge everyone's scores."""
    plan, layout, real = scorer.plan, scorer.layout, scorer.real
    ceiling, floor = genuine_and_impostor(real)
    compared = {identity for identity, faces in real.items() if len(faces.held_out)}
    variants = [*plan.variants(), *layout.external_variants()]
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


def benchmark_record(plan: Plan, real: Mapping[str, RealFaces]) -> Record:
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


def picked(planned: PlannedPerson | PlannedPrompt, *names: str) -> Record:
    """Some of its fields, as JSON calls them: `class` is a word of Python."""
    return {name: getattr(planned, "class_name" if name == "class" else name) for name in names}


def variant_record(
    variant: Variant, plan: Plan, layout: Layout, compared: set[str], floor: float | None, ceiling: float | None
) -> Record:
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
        **asdict(variant),
        "settings": settings,
        "meta_down_sha256": downs if variant.method == "meta-lora" else None,
        "lora_sha256": loras,
        "images": images,
        "missing": [path for score in scores for path in score["missing"]],
        "summary": summary(images, plan.people, compared, floor, ceiling),
    }


def identity_values(
    images: Iterable[Record], score: str, misses: Misses | None, compared: set[str]
) -> dict[str, float]:
    """Each identity's mean over prompts of means over images; face scores only of people with held-out photos."""
    if score in PICTURE_SCORES:
        return means_of((image["identity"], image["prompt"], image[score]) for image in images)
    of_faces = [image for image in images if image["identity"] in compared]
    if score in COUNTED:
        return means_of(
            (image["identity"], image["prompt"], float(image["nearest"] == image["identity"])) for image in of_faces
        )
    scores = [ImageScore(*(image[one.name] for one in fields(ImageScore))) for image in of_faces]
    return identity_means(scores, FACE_SCORES[score], misses or "left out")


def figure(values: Mapping[str, float], share: bool = False) -> Record | None:
    """A mean over identities; with its interval, if there are enough of them, which for a share ends at 0 and 1."""
    if not values:
        return None
    if len(values) < FEWEST_PEOPLE:
        return {"mean": mean(values.values()), "low": None, "high": None, "count": len(values)}
    interval = bootstrap([values[identity] for identity in sorted(values)])
    return asdict(interval.of_a_share() if share else interval)


def summary(
    images: Sequence[Record],
    people: Sequence[PlannedPerson],
    compared: set[str],
    floor: float | None,
    ceiling: float | None,
) -> Record:
    """Every figure of one variant."""
    by_misses = {
        score: {misses: figure(identity_values(images, score, misses, compared)) for misses in MISSES}
        for score in FACE_SCORES
    }
    overall = by_misses["r_facesim"]["left out"]
    place = None
    if overall is not None and floor is not None and ceiling is not None and floor < ceiling:
        place = position(overall["mean"], floor, ceiling)
    class_of = {person.identity: person.class_name for person in people}
    return {
        **by_misses,
        **{
            score: figure(identity_values(images, score, None, compared), share=score in COUNTED)
            for score in COUNTED + PICTURE_SCORES
        },
        "shown": shown(images),
        "detection_rate": mean(float(image["faces"] > 0) for image in images) if images else None,
        "position": place,
        "by_class": grouped_means(images, lambda image: class_of[image["identity"]], compared),
        "by_prompt": grouped_means(images, lambda image: image["prompt"], compared),
    }


def shown(images: Sequence[Record]) -> dict[str, Record | None]:
    """By attribute that has alternatives: the share of images that show the asked one, by CLIP's choice."""
    attributes = sorted({attribute for image in images for attribute in image["shown"] or {}})
    return {
        attribute: figure(
            means_of((i["identity"], i["prompt"], i["shown"].get(attribute)) for i in images if i["shown"] is not None),
            share=True,
        )
        for attribute in attributes
    }


def grouped_means(
    images: Iterable[Record], group_of: Callable[[Record], str], compared: set[str]
) -> dict[str, dict[str, float | None]]:
    """Every score's mean over identities in each group, without an interval; images without a face are left out."""
    groups: dict[str, list[Record]] = {}
    for image in images:
        groups.setdefault(group_of(image), []).append(image)
    return {
        group: {
            score: mean(values.values()) if (values := identity_values(own, score, "left out", compared)) else None
            for score in SCORES
        }
        for group, own in sorted(groups.items())
    }


def comparisons(variants: Sequence[Record], compared: set[str]) -> list[Record]:
    """Every two variants, paired over the identities that both have a score of."""
    found = []
    kinds: list[tuple[str, Misses | None]] = [(score, misses) for score in FACE_SCORES for misses in MISSES]
    kinds += [(score, None) for score in COUNTED + PICTURE_SCORES]
    for score, misses in kinds:
        values = {v["id"]: identity_values(v["images"], score, misses, compared) for v in variants}
        for one, other in combinations(values, 2):
            common = sorted(values[one].keys() & values[other].keys())
            if common:
                gains = figure({identity: values[one][identity] - values[other][identity] for identity in common})
                found.append({"one": one, "other": other, "score": score, "misses": misses, **(gains or {})})
    return found


def genuine_and_impostor(real: Mapping[str, RealFaces]) -> tuple[float | None, float | None]:
    """(ceiling, floor) on real photos: of one person, mean over people; of two, mean over pairs of people.

    As in R-FaceSim, nobody weighs more for having more photos.
    """
    photos = {identity: faces.all() for identity, faces in real.items()}
    own = []
    for vectors in photos.values():
        if len(vectors) > 1:
            ones, others = torch.triu_indices(len(vectors), len(vectors), offset=1)
            own.append(cosines(vectors, vectors)[ones, others].mean().item())
    strangers = [cosines(photos[a], photos[b]).mean().item() for a, b in combinations(photos, 2)]
    return mean(own) if own else None, mean(strangers) if strangers else None
