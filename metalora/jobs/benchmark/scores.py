"""Scores of a benchmark's images, person by person, each kept in a file with the hashes of all it was made from.

Of faces; and of whole pictures: CLIP-T, CLIP-I, and whether what was asked is what CLIP sees.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...measure.clip import ClipScorer
from ...measure.faces import FaceAnalyser
from ...measure.similarity import ImageScore, cosines, nearest, score_image
from ...store import files
from ...store.cache import Cache
from ...store.images import read_photo
from ...store.manifest import Identity, Photo
from ..evaluate.photos import only_embedding
from ..evaluate.whole import as_bytes
from .images import wanted_of
from .plan import Cell, Layout, Plan, PlannedPerson, PlannedPrompt, Variant


@dataclass(frozen=True)
class RealFaces:
    """One person's real photos as embeddings; held_out [m, d] is empty for a person of one photo."""

    reference: Tensor  # [d]
    held_out: Tensor
    sha256: Sequence[str] = ()  # of the files, the reference first

    def all(self) -> Tensor:
        """[1 + m, d]."""
        return torch.cat([self.reference[None], self.held_out])


def real_faces(person: Identity, analyser: FaceAnalyser, cache: Cache) -> RealFaces:
    """Every photo must show a face; the file without one is named."""
    photos = [person.reference, *person.held_out]
    reference, *held_out = [real_face(photo, analyser, cache) for photo in photos]
    stacked = torch.stack(held_out) if held_out else torch.empty(0, len(reference))
    return RealFaces(reference, stacked, [photo.sha256 for photo in photos])


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


class PictureScorer:
    """A CLIP, where there is one; every score is null where there is none."""

    def __init__(self, clip: ClipScorer | None, alternatives: Mapping[str, Mapping[str, str]]) -> None:
        self.clip, self.alternatives = clip, alternatives
        self.known: dict[tuple[str, ...], Tensor] = {}  # everyone of a class is asked the same

    def score(
        self, paths: Sequence[Path], prompts: Sequence[PlannedPrompt], class_name: str, reference: Path
    ) -> list[dict[str, Any]]:
        """clip_t and clip_i (cosines times 100) and shown (by attribute 0 or 1) of each picture.

        All pictures of a person go through together, always: rounding depends on it.
        """
        if not paths or self.clip is None:
            return [{"clip_t": None, "clip_i": None, "shown": None} for _ in paths]
        seen, known = self.clip.images([as_bytes(path) for path in paths]), self.clip.images([as_bytes(reference)])
        texts = self.texts([prompt.filled[class_name] for prompt in prompts])
        return [
            {
                "clip_t": 100 * cosines(image[None], text[None]).item(),
                "clip_i": 100 * cosines(image[None], known).item(),
                "shown": self.shown(image, prompt),
            }
            for image, text, prompt in zip(seen, texts, prompts, strict=True)
        ]

    def texts(self, texts: Sequence[str]) -> Tensor:
        """[n, d], embedded once."""
        assert self.clip is not None
        key = tuple(texts)
        if key not in self.known:
            self.known[key] = self.clip.texts(texts)
        return self.known[key]

    def shown(self, image: Tensor, prompt: PlannedPrompt) -> dict[str, int]:
        """By attribute with alternatives: whether the asked one's phrase is the nearest of all (0 or 1)."""
        found = {}
        for attribute, phrases in self.alternatives.items():
            if attribute in prompt.asks:
                nearest = int(cosines(image[None], self.texts(list(phrases.values())))[0].argmax())
                found[attribute] = int(nearest == list(phrases).index(prompt.asks[attribute]))
        return found


class Made(NamedTuple):
    """An image that is there."""

    prompt: PlannedPrompt
    seed: int
    path: Path
    sha256: str


@dataclass
class Scorer:
    """Who scores the images of a run, and what they are compared with."""

    plan: Plan
    layout: Layout
    analyser: FaceAnalyser
    pictures: PictureScorer
    gallery: Gallery
    real: dict[str, RealFaces] = field(default_factory=dict)  # by identity
    seen: dict[str, Tensor] = field(default_factory=dict)  # by sha256: several people may be compared with one image

    def faces(self, made: Made) -> Tensor:
        """[k, d], the largest first, embedded once."""
        if made.sha256 not in self.seen:
            self.seen[made.sha256] = self.analyser.embeddings(read_photo(made.path))
        return self.seen[made.sha256]

    def to_score(self, variant: Variant, person: PlannedPerson) -> tuple[list[Made], dict[str, Any]]:
        """(the images of a variant and a person that are there, all that their scores depend on)."""
        there: list[Made] = []
        missing = []
        for prompt, seed in wanted_of(self.plan, variant, person):
            path = self.layout.image(variant, person, prompt, seed)
            if not prompt.asked_of(person):
                continue  # an image that is everyone's, and asked of others
            if path.exists():
                there.append(Made(prompt, seed, path, files.digest(path.read_bytes())))
            else:
                missing.append(self.layout.relative(path))
        inputs = {
            "images": [[made.prompt.id, made.seed, made.sha256] for made in there],
            "photos": list(self.real[person.identity].sha256),
            "faces": self.analyser.digest,
            "gallery": self.gallery.digest,
            "clip": self.pictures.clip and self.pictures.clip.digest,
        }
        return there, {"inputs": inputs, "missing": missing}

    def is_scored(self, cell: Cell) -> bool:
        """Whether the scores are there and of these images: another process may not have come to them yet."""
        return self.to_score(*cell)[1].items() <= read_scores(self.layout.scores(*cell)).items()

    def score(self, cell: Cell) -> None:
        """Write the scores of a person's images, unless they are there and nothing they depend on has changed."""
        variant, person = cell
        there, depends = self.to_score(variant, person)
        if depends.items() <= read_scores(self.layout.scores(variant, person)).items():
            return
        paths, prompts = [made.path for made in there], [made.prompt for made in there]
        pictures = self.pictures.score(paths, prompts, person.class_name, self.layout.run / person.reference)
        images = [{**self.record(made, person), **others} for made, others in zip(there, pictures, strict=True)]
        text = json.dumps({**depends, "images": images}, indent=1) + "\n"
        files.write_bytes(self.layout.scores(variant, person), text.encode())

    def record(self, made: Made, person: PlannedPerson) -> dict[str, Any]:
        """What results.json says of an image's faces, against the held-out photos and the reference."""
        faces, real, looked_for = self.faces(made), self.real[person.identity], None
        if len(real.held_out):
            score = score_image(person.identity, made.prompt.id, faces, real.held_out, real.reference)
            looked_for = nearest(faces[0], self.gallery.photos) if len(faces) else None
        else:  # a person of one photo
            alike = cosines(faces[:1], real.reference[None]).item() if len(faces) else None
            score = ImageScore(person.identity, made.prompt.id, len(faces), None, alike, None)
        file = {"seed": made.seed, "path": self.layout.relative(made.path), "sha256": made.sha256}
        return {"identity": person.identity, "prompt": made.prompt.id, **file, **asdict(score), "nearest": looked_for}


def read_scores(path: Path) -> dict[str, Any]:
    """What a `Scorer` wrote; empty where there is nothing."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
