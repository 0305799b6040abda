"""Scores of a benchmark's images, person by person, each kept in a file with the hashes of all it was made from."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...measure.faces import FaceAnalyser
from ...measure.similarity import ImageScore, cosines, nearest, score_image
from ...store import files
from ...store.cache import Cache
from ...store.images import read_photo
from ...store.manifest import Identity, Photo
from ..evaluate.faces import only_embedding
from .images import Wanted, wanted_of
from .layout import Layout
from .pictures import PictureScorer
from .plan import Plan, PlannedPerson, PlannedPrompt, Variant


@dataclass(frozen=True)
class RealFaces:
    """One person's real photos as embeddings; held_out [m, d] is empty for a person of one photo."""

    reference: Tensor  # [d]
    held_out: Tensor

    def all(self) -> Tensor:
        """[1 + m, d]."""
        return torch.cat([self.reference[None], self.held_out])


def real_faces(person: Identity, analyser: FaceAnalyser, cache: Cache) -> RealFaces:
    """Every photo must show a face; the file without one is named."""
    reference, *held_out = [real_face(photo, analyser, cache) for photo in (person.reference, *person.held_out)]
    return RealFaces(reference, torch.stack(held_out) if held_out else torch.empty(0, len(reference)))


def real_face(photo: Photo, analyser: FaceAnalyser, cache: Cache) -> Tensor:
    """The largest face [d], embedded once."""
    key = cache.key(what="real face", photo=photo.sha256, faces=analyser.digest)
    if key not in cache:
        cache.put(key, {"face": only_embedding(analyser, photo.path)})
    return cache.get(key)["face"]


@dataclass(frozen=True)
class Gallery:
    """Whom a generated face is looked for among."""

    photos: Mapping[str, Tensor]  # held-out photos [m, d] by identity
    digest: str  # of the photos' files


def gallery_of(plan: Plan, people: Mapping[str, Identity], analyser: FaceAnalyser, cache: Cache) -> Gallery:
    """The plan's. The photo that somebody is trained on is not in it."""
    photos = {name: people[name].held_out for name in plan.gallery}
    faces = {name: torch.stack([real_face(one, analyser, cache) for one in own]) for name, own in photos.items()}
    return Gallery(faces, files.digest("".join(p.sha256 for own in photos.values() for p in own).encode()))


@dataclass
class Scorer:
    """Who scores; an image's faces are embedded once, though several people may be compared with it."""

    analyser: FaceAnalyser
    pictures: PictureScorer
    gallery: Gallery
    seen: dict[str, Tensor] = field(default_factory=dict)

    def faces(self, path: Path, sha256: str) -> Tensor:
        """[k, d], the largest first."""
        if sha256 not in self.seen:
            self.seen[sha256] = self.analyser.embeddings(read_photo(path))
        return self.seen[sha256]


@dataclass(frozen=True)
class Subject:
    """A variant's images of one person, with what they are compared with."""

    variant: Variant
    person: PlannedPerson
    real: RealFaces
    photos: Sequence[str]  # sha256 of the real photos


@dataclass(frozen=True)
class Made:
    """An image that is there."""

    prompt: PlannedPrompt
    seed: int
    path: Path
    sha256: str


def images_there(plan: Plan, layout: Layout, subject: Subject) -> tuple[list[Made], list[str]]:
    """(the images that are there, the paths of the missing)."""
    there: list[Made] = []
    missing = []
    for wanted in wanted_of_person(plan, subject):
        path = layout.image(subject.variant, subject.person, wanted.prompt, wanted.seed)
        if path.exists():
            there.append(Made(wanted.prompt, wanted.seed, path, files.digest(path.read_bytes())))
        else:
            missing.append(layout.relative(path))
    return there, missing


def wanted_of_person(plan: Plan, subject: Subject) -> list[Wanted]:
    """What this person is compared on, also where the images are everyone's."""
    asked = {prompt.id for prompt in plan.prompts_of(subject.person)}
    return [wanted for wanted in wanted_of(plan, subject.variant, subject.person) if wanted.prompt.id in asked]


def inputs_of(scorer: Scorer, subject: Subject, there: Sequence[Made]) -> dict[str, Any]:
    """The hashes that the scores depend on."""
    return {
        "images": [[made.prompt.id, made.seed, made.sha256] for made in there],
        "photos": list(subject.photos),
        "faces": scorer.analyser.digest,
        "gallery": scorer.gallery.digest,
        "clip": scorer.pictures.clip and scorer.pictures.clip.digest,
    }


def score_person(subject: Subject, plan: Plan, layout: Layout, scorer: Scorer) -> None:
    """Write the scores of a person's images, unless they are there and nothing they depend on has changed."""
    there, missing = images_there(plan, layout, subject)
    inputs = inputs_of(scorer, subject, there)
    path = layout.scores(subject.variant, subject.person)
    known = read_scores(path)
    if known.get("inputs") == inputs and known.get("missing") == missing:
        return
    pictures = scorer.pictures.score(
        [made.path for made in there],
        [made.prompt for made in there],
        subject.person.class_name,
        layout.run / subject.person.reference,
    )
    images = [
        {**image_record(made, subject, layout, scorer), **others} for made, others in zip(there, pictures, strict=True)
    ]
    record = {"inputs": inputs, "images": images, "missing": missing}
    files.write_bytes(path, (json.dumps(record, indent=1) + "\n").encode())


def is_scored(subject: Subject, plan: Plan, layout: Layout, scorer: Scorer) -> bool:
    """Whether the scores are there and of these images: another process may not have come to them yet."""
    record = read_scores(layout.scores(subject.variant, subject.person))
    there, missing = images_there(plan, layout, subject)
    return record.get("inputs") == inputs_of(scorer, subject, there) and record.get("missing") == missing


def image_record(made: Made, subject: Subject, layout: Layout, scorer: Scorer) -> dict[str, Any]:
    """What results.json says of an image's faces."""
    faces = scorer.faces(made.path, made.sha256)
    looked_for = len(faces) and len(subject.real.held_out)  # not of a person of one photo
    score = face_score(subject, made.prompt.id, faces)
    return {
        "identity": score.identity,
        "prompt": score.prompt,
        "seed": made.seed,
        "path": layout.relative(made.path),
        "sha256": made.sha256,
        "faces": score.faces,
        "held_out": score.held_out,
        "reference": score.reference,
        "best": score.best,
        "nearest": nearest(faces[0], scorer.gallery.photos) if looked_for else None,
    }


def face_score(subject: Subject, prompt: str, faces: Tensor) -> ImageScore:
    """Against the held-out photos and the reference; a person of one photo has the reference alone."""
    identity, real = subject.person.identity, subject.real
    if len(real.held_out):
        return score_image(identity, prompt, faces, real.held_out, real.reference)
    to_reference = cosines(faces[:1], real.reference[None]).item() if len(faces) else None
    return ImageScore(identity, prompt, len(faces), None, to_reference, None)


def read_scores(path: Path) -> dict[str, Any]:
    """What `score_person` wrote; empty where there is nothing."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
