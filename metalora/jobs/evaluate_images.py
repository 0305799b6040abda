"""How like a person are generated images, from any method? R-FaceSim of folders of pictures."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ..config import FEWEST_PEOPLE, Phase, Step, UserError
from ..measure.faces import FaceAnalyser, load_faces
from ..measure.intervals import Interval, bootstrap
from ..measure.similarity import ImageScore, Misses, Score, detection_rate, identity_means, score_image
from ..store.folders import pictures_in
from ..store.image_prompts import read_image_prompts
from ..store.images import photo_digest, read_image_facts, read_photo
from . import Job
from .evaluate_prompts import WholeImage, WholeReport, evaluate_whole
from .face_embeddings import all_embeddings, only_embeddings


@dataclass(frozen=True)
class ImageReport:
    """How like the generated people are to photos that were not trained on."""

    embedder: str
    embedder_sha256: str
    images: int
    detection_rate: float
    r_facesim: dict[str, float]  # by what is done with misses
    facesim: dict[str, float]
    copying: float | None
    interval: Interval | None  # of R-FaceSim with misses left out; needs FEWEST_PEOPLE
    by_identity: dict[str, float]
    without_a_face: list[str]
    whole: WholeReport | None = None  # CLIP-T, CLIP-I and DINO, where they were asked for


def evaluate_images(
    images: Path,
    photos: Path,
    reference: Path,
    embedder: str,
    *,
    clip: str | None = None,
    dino: str | None = None,
    prompts: Path | None = None,
) -> Job[ImageReport]:
    """R-FaceSim of generated images against held-out photos, and FaceSim against the reference.

    Of one person: a folder of images, a folder of photos, a file. Of several: three folders with one sub-folder a
    person. An image's prompt is what the file `prompts` says, or else its PNG; without either, images whose names
    differ in the number at their end count as of one prompt. With `clip` or `dino`, also scores of the whole images.
    """
    people = people_of(images, photos, reference)
    analyser = load_faces(embedder)
    wanted = [(person, path) for person in people for path in pictures_in(person.images)]
    asked = asked_of([path for _, path in wanted], images, prompts)
    yield Phase(f"{len(people)} {'people' if len(people) > 1 else 'person'}, {len(wanted)} images")
    real = {person: person_embeddings(analyser, person) for person in people}
    scores: list[ImageScore] = []
    without: list[str] = []
    all_faces = all_embeddings(analyser, [path for _, path in wanted])
    for (person, path), faces in zip(wanted, all_faces, strict=True):
        scores.append(score_image(person.name, group_of(path, asked), faces, *real[person]))
        if not len(faces):
            without.append(str(path.relative_to(images)))
        yield Step(len(scores), len(wanted))
    report = summarized(scores, without, analyser)
    if clip is None and dino is None:
        return report
    whole = [WholeImage(p.name, path, p.reference, asked[path], group_of(path, asked)) for p, path in wanted]
    return replace(report, whole=(yield from evaluate_whole(whole, clip, dino)))


@dataclass(frozen=True)
class Person:
    """Where one person's pictures are."""

    name: str
    images: Path
    photos: Path
    reference: Path


def people_of(images: Path, photos: Path, reference: Path) -> list[Person]:
    """One person, or one for each sub-folder of `images`; whatever is missing is named at once."""
    if pictures_in(images):
        return [Person(images.name, images, photos, reference)]
    names = sorted(path.name for path in images.iterdir() if path.is_dir() and pictures_in(path))
    if not names:
        raise UserError(f"{images} has neither pictures nor sub-folders with pictures.")
    absent = [str(folder / name) for name in names for folder in (photos, reference) if not (folder / name).is_dir()]
    if absent:
        raise UserError(f"{images} has sub-folders as people, but these folders are missing: {', '.join(absent)}.")
    people = []
    for name in names:
        references = pictures_in(reference / name)
        if len(references) != 1:
            raise UserError(f"{reference / name} has {len(references)} pictures; exactly one is the reference.")
        people.append(Person(name, images / name, photos / name, references[0]))
    return people


def person_embeddings(analyser: FaceAnalyser, person: Person) -> tuple[Tensor, Tensor]:
    """(held-out [m, d], reference [d]); a photo without a face, or the reference among the held-out, is refused."""
    paths = pictures_in(person.photos)
    if not paths:
        raise UserError(f"{person.photos} has no photo; held-out photos of {person.name} are needed.")
    digest = photo_digest(read_photo(person.reference))
    for path in paths:
        if photo_digest(read_photo(path)) == digest:
            raise UserError(
                f"{path} is the reference {person.reference} again. R-FaceSim leaves the reference out, or copying it "
                "would pay: take it out of the held-out photos."
            )
    reference, *held_out = only_embeddings(analyser, [person.reference, *paths])
    return torch.stack(held_out), reference


def asked_of(paths: Sequence[Path], images: Path, table: Path | None) -> dict[Path, str | None]:
    """The prompt of each image: from the table, which then must name all of them, or from our own PNGs."""
    if table is None:
        return {path: prompt_of(path) for path in paths}
    known = read_image_prompts(table)
    names = {path: path.relative_to(images).as_posix() for path in paths}
    if absent := [name for name in names.values() if name not in known]:
        raise UserError(
            f"{table} has no prompt for {len(absent)} of {len(paths)} images in {images}, such as {absent[0]}. Name "
            f"every image relative to that folder; {table} begins with {next(iter(known))}."
        )
    return {path: known[name] for path, name in names.items()}


def prompt_of(path: Path) -> str | None:
    """What one of our PNGs says it shows."""
    facts = read_image_facts(path).get("metalora")
    return None if facts is None else json.loads(facts)["prompt"]


def group_of(path: Path, asked: Mapping[Path, str | None]) -> str:
    """What R-FaceSim averages first: the prompt, or else the file's name without its number."""
    return asked[path] or path.stem.rstrip("0123456789").rstrip("-_ ")


def summarized(scores: list[ImageScore], without: list[str], analyser: FaceAnalyser) -> ImageReport:
    """Both ways of counting images without a face, side by side."""

    def means(score: Score) -> dict[str, float]:
        policies: tuple[Misses, ...] = ("left out", "as zero")
        by_policy = {misses: identity_means(scores, score, misses) for misses in policies}
        return {misses: sum(found.values()) / len(found) for misses, found in by_policy.items() if found}

    by_identity = identity_means(scores, "held_out", "left out")
    copying = identity_means(scores, "copying", "left out")
    return ImageReport(
        embedder=analyser.name,
        embedder_sha256=analyser.digest,
        images=len(scores),
        detection_rate=detection_rate(scores),
        r_facesim=means("held_out"),
        facesim=means("reference"),
        copying=sum(copying.values()) / len(copying) if copying else None,
        interval=bootstrap(list(by_identity.values())) if len(by_identity) >= FEWEST_PEOPLE else None,
        by_identity=by_identity,
        without_a_face=without,
    )
