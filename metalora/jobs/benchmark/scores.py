"""Scores of a benchmark's images, person by person, each kept in a file with the hashes of all it was made from."""

import json
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...backbones.protocol import Backbone
from ...config import Phase, Step
from ...measure.faces import FaceAnalyser
from ...measure.identification import likeness_to_others, likeness_to_people, nearest
from ...measure.similarity import ImageScore, cosines, score_image
from ...method.crops import Box
from ...store import files
from ...store.cache import Cache
from ...store.images import read_photo, resize_crop
from ...store.manifest import Identity, Photo
from .. import Job
from ..evaluate.faces import embeddings, only_embedding
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

    photos: Mapping[str, Tensor]  # held-out photos [m, d], or the only photo [1, d]
    people: Set[str]  # those with held-out photos
    digest: str  # of the photos' files


def gallery_of(plan: Plan, people: Mapping[str, Identity], analyser: FaceAnalyser, cache: Cache) -> Gallery:
    """The plan's. The photo that somebody is trained on is not in it."""
    photos = {name: people[name].held_out or [people[name].reference] for name in plan.gallery}
    faces = {name: torch.stack([real_face(one, analyser, cache) for one in own]) for name, own in photos.items()}
    held_out = {name for name in plan.gallery if people[name].held_out}
    return Gallery(faces, held_out, files.digest("".join(p.sha256 for own in photos.values() for p in own).encode()))


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
            self.seen[sha256] = embeddings(self.analyser, path)
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
        "pictures": scorer.pictures.digests(),
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
        **among_others(subject, faces, scorer.gallery),
    }


def among_others(subject: Subject, faces: Tensor, gallery: Gallery) -> dict[str, Any]:
    """Whose the largest face is taken for, and how like others it is; null for a person of one photo, or no face."""
    if not len(faces) or not len(subject.real.held_out):
        return {"nearest": None, "others": None}
    likeness = likeness_to_people(faces[0], gallery.photos)
    others = likeness_to_others(likeness, subject.person.identity, gallery.people)
    return {"nearest": nearest(likeness), "others": others}


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


def through_autoencoder(
    plan: Plan, people: Mapping[str, Identity], backbone: Backbone, analyser: FaceAnalyser, cache: Cache
) -> Job[dict[str, list[Tensor]]]:
    """The faces [k, d] in each held-out photo of the plan's people after encoding and decoding, the largest first."""
    wanted = {p.identity: people[p.identity].held_out for p in plan.people if people[p.identity].held_out}
    longest = max(plan.sampling["width"], plan.sampling["height"])

    def key(photo: Photo) -> str:
        return cache.key(
            what="faces after the autoencoder",
            photo=photo.sha256,
            autoencoder=backbone.fingerprint("autoencoder"),
            longest=longest,
            faces=analyser.digest,
        )

    missing = [photo for photos in wanted.values() for photo in photos if key(photo) not in cache]
    if missing:
        yield Phase(f"the autoencoder's ceiling: {len(missing)} real photos are encoded and decoded")
        with backbone.autoencoder() as autoencoder:
            for count, photo in enumerate(missing, 1):
                image = fitted(read_photo(photo.path), longest, backbone.multiple)
                decoded = autoencoder.decode(autoencoder.encode(image)).clamp(0, 1)
                vectors = analyser.embeddings([decoded])[0]
                cache.put(key(photo), {"faces": vectors if len(vectors) else torch.empty(0, 0)})
                yield Step(count, len(missing))
    return {name: [cache.get(key(photo))["faces"] for photo in photos] for name, photos in wanted.items()}


def fitted(photo: Tensor, longest: int, multiple: int) -> Tensor:
    """The photo [3, H, W] no larger than the run's images, each side a multiple of what the base needs."""
    height, width = photo.shape[-2:]
    shrunk = min(1.0, longest / max(height, width))
    sides = [max(multiple, int(side * shrunk) // multiple * multiple) for side in (width, height)]
    if sides == [width, height]:
        return photo
    return resize_crop(photo, Box(0, 0, width, height), sides[0], sides[1])
