"""results.json from the files of a run: the same bytes however the work was cut, stopped or dealt."""

import json
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

import torch
from torch import Tensor

from ...measure.identification import likeness_after
from ...store import files
from .layout import Layout
from .pictures import PictureEmbedder, TextEmbedder
from .plan import Plan, Variant, filled_texts
from .scores import RealFaces, Scorer, read_scores
from .summary import comparisons, genuine_and_impostor, summary

FORMAT = "metalora-results-1"


def write_results(
    plan: Plan,
    layout: Layout,
    variants: Sequence[Variant],
    real: Mapping[str, RealFaces],
    passed: Mapping[str, Sequence[Tensor]],
    scorer: Scorer,
) -> None:
    """Merge everyone's scores; `passed` has the faces [k, d] in each held-out photo after the autoencoder."""
    ceiling, floor = genuine_and_impostor(real)
    compared = {identity for identity, faces in real.items() if len(faces.held_out)}
    ceilings = ceilings_of(passed, real)
    rows = [variant_record(variant, plan, layout, compared, (floor, ceiling, ceilings)) for variant in variants]
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
                "autoencoder_mean": mean(ceilings.values()) if ceilings else None,
                "autoencoder_photos": sum(map(len, passed.values())),
                "autoencoder_detected": sum(len(faces) > 0 for own in passed.values() for faces in own),
            },
            "clip": clip_record(scorer.pictures.clip, plan),
            "dino": embedder_record(scorer.pictures.dino),
        },
        "variants": rows,
        "comparisons": comparisons(rows, compared),
    }
    text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    files.write_bytes(layout.results, text.encode())


def benchmark_record(plan: Plan, real: Mapping[str, RealFaces]) -> dict[str, Any]:
    """Whom and what the benchmark asks for."""
    return {
        "name": plan.name,
        "manifest_sha256": plan.manifest_sha256,
        "prompts_sha256": plan.prompts_sha256,
        "identities": [
            {
                "identity": person.identity,
                "class": person.class_name,
                "part": person.part,
                "held_out": len(real[person.identity].held_out),
                "reference": person.reference,
            }
            for person in plan.people
        ],
        "gallery": plan.gallery,
        "alternatives": {attribute: len(phrases) for attribute, phrases in plan.alternatives.items()},
        "prompts": [
            {
                "id": prompt.id,
                "part": prompt.part,
                "class": prompt.class_name,
                "group": prompt.group,
                "text": prompt.text,
                "tags": prompt.tags,
                "asks": prompt.asks or None,
            }
            for prompt in plan.prompts
        ],
    }


def ceilings_of(passed: Mapping[str, Sequence[Tensor]], real: Mapping[str, RealFaces]) -> dict[str, float]:
    """How like themselves people are after the autoencoder; without those whose face it lost in every photo."""
    found = {}
    for identity, faces in passed.items():
        photos = torch.cat([real[identity].held_out, real[identity].reference[None]])
        if (likeness := likeness_after(faces, photos)) is not None:
            found[identity] = likeness
    return found


Ends = tuple[float | None, float | None, Mapping[str, float]]  # floor, ceiling, and the autoencoder's of each person


def variant_record(variant: Variant, plan: Plan, layout: Layout, compared: set[str], ends: Ends) -> dict[str, Any]:
    """One variant with all its images and figures."""
    scores = [read_scores(layout.scores(variant, person)) for person in plan.people]
    images = [image for score in scores for image in score["images"]]
    settings, loras = {}, {}
    if variant.steps is not None:
        captions = "photo" if any(person.shows for person in plan.people) else "class"
        settings = {**plan.training, **plan.crops, "learn_from": variant.learn_from, "captions": captions}
        loras = {p.identity: files.digest(layout.lora(variant, p).read_bytes()) for p in plan.people}
    downs = {class_name: down["sha256"] for class_name, down in plan.meta_downs.items()}
    return {
        "id": variant.id,
        "method": variant.series,
        "label": variant.label,
        "steps": variant.steps,
        "rank": variant.rank,
        "settings": settings,
        "meta_down_sha256": downs if variant.method == "meta-lora" else None,
        "lora_sha256": loras,
        "images": images,
        "missing": [path for score in scores for path in score["missing"]],
        "summary": summary(images, plan.people, compared, *ends),
    }


def clip_record(clip: TextEmbedder | None, plan: Plan) -> dict[str, Any] | None:
    """Who embedded prompts, and which of them it read only the beginning of."""
    if clip is None:
        return None
    return {"name": clip.name, "sha256": clip.digest, "truncated": clip.truncated(filled_texts(plan.prompts))}


def embedder_record(embedder: PictureEmbedder | None) -> dict[str, str] | None:
    """Who embedded."""
    return None if embedder is None else {"name": embedder.name, "sha256": embedder.digest}
