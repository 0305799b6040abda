"""How like a person are generated images, from any method? R-FaceSim of folders of pictures, or of pixels."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor

from ...config import FEWEST_PEOPLE, Phase, Step, UserError
from ...measure import load_faces
from ...measure.faces import FaceAnalyser
from ...measure.intervals import Interval, bootstrap
from ...measure.similarity import MISSES, ImageScore, Score, detection_rate, identity_means, score_image
from ...store.folders import skipped
from ...store.images import photo_digest
from ...store.tables import read_image_prompts
from .. import Job
from .people import LeftOut, asked_of, group_of, people_of, wanted_images
from .photos import all_embeddings, checked, compared_faces, look_at, look_at_one
from .whole import WholeImage, WholeReport, evaluate_whole


@dataclass(frozen=True)
class ImageRow:
    """One image that was scored; None without a face."""

    file: str
    person: str
    prompt: str
    faces: int
    held_out: float | None
    reference: float | None


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
    whole: WholeReport | None = None  # CLIP-T and CLIP-I, where they were asked for
    rows: list[ImageRow] = field(default_factory=list)
    photos: dict[str, list[str]] = field(default_factory=dict)  # by person; the reference first
    left_out: list[LeftOut] = field(default_factory=list)
    odd_photos: list[str] = field(default_factory=list)  # what is wrong with the photos, where that was let pass


def evaluate_images(
    images: Path,
    photos: Path,
    reference: Path,
    embedder: str,
    *,
    clip: str | None = None,
    prompts: Path | None = None,
    turn: str = "refuse",
    as_they_are: bool = False,
) -> Job[ImageReport]:
    """R-FaceSim of generated images against held-out photos, and FaceSim against the reference.

    Of one person: a folder of images, a folder of photos, a file. Of several: three folders with one sub-folder a
    person. An image's prompt is what the file `prompts` says, or else its PNG; without either, images whose names
    differ in the number at their end count as of one prompt. With `clip`, also scores of the whole images.
    """
    people = people_of(images, photos, reference)
    listed = read_image_prompts(prompts) if prompts else None
    analyser = load_faces(embedder)
    compared = [[person.reference, *person.held_out()] for person in people]
    if beside := skipped([folder for person in people for folder in (person.images, person.photos)]):
        yield Phase(beside)
    yield Phase(f"looking at {sum(map(len, compared))} photos to compare with")
    looks = {person: list(look_at(analyser, paths, turn)) for person, paths in zip(people, compared, strict=True)}
    wanted, left_out = wanted_images(people, looks, images, listed)
    for picture in left_out:
        yield Phase(f"left out: {picture.file} ({picture.why})")
    odd = yield from checked(list(looks.values()), as_they_are)
    asked = asked_of([path for _, path in wanted], images, prompts, listed)
    yield Phase(f"{len(people)} {'people' if len(people) > 1 else 'person'}, {len(wanted)} images")
    real = {person: compared_faces(of_person) for person, of_person in looks.items()}
    scores: list[ImageScore] = []
    all_faces = all_embeddings(analyser, [path for _, path in wanted])
    for (person, path), faces in zip(wanted, all_faces, strict=True):
        scores.append(score_image(person.name, group_of(path, asked), faces, *real[person]))
        yield Step(len(scores), len(wanted))
    files = [path.relative_to(images).as_posix() for _, path in wanted]
    report = replace(
        summarized(scores, files, analyser),
        rows=[
            ImageRow(file, score.identity, score.prompt, score.faces, score.held_out, score.reference)
            for file, score in zip(files, scores, strict=True)
        ],
        photos={person.name: [look.path.name for look in of_person] for person, of_person in looks.items()},
        left_out=left_out,
        odd_photos=odd,
    )
    if clip is None:
        return report
    whole = [WholeImage(p.name, path, p.reference, asked[path], group_of(path, asked)) for p, path in wanted]
    return replace(report, whole=(yield from evaluate_whole(whole, clip)))


@dataclass(frozen=True)
class PictureReport:
    """The summary, and each image's scores in the images' order."""

    summary: ImageReport
    scores: list[ImageScore]


def evaluate_pictures(
    images: Sequence[Tensor],
    held_out: Sequence[Tensor],
    reference: Tensor,
    prompts: Sequence[str],
    embedder: str,
    *,
    as_they_are: bool = False,
) -> Job[PictureReport]:
    """Images [3, H, W] of one person against photos that were not trained on, and against the one that was.

    The photos are looked at first: turned ones, strangers and the like are refused, unless `as_they_are`. `prompts`
    names what each image shows: one for each, or one for all; R-FaceSim averages over prompts.
    """
    named = list(prompts) * len(images) if len(prompts) == 1 else list(prompts)
    if not images or not held_out:
        raise UserError(f"There are {len(images)} images and {len(held_out)} held-out photos; each needs at least one.")
    if len(named) != len(images):
        raise UserError(
            f"There are {len(prompts)} prompts for {len(images)} images; give one for each, or one for all."
        )
    analyser = load_faces(embedder)
    yield Phase(f"{len(images)} images, {len(held_out)} held-out photos, {embedder}")
    photos = [(reference, "the reference photo")]
    photos += [(photo, f"held-out photo {number}") for number, photo in enumerate(held_out, 1)]
    looks = [look_at_one(analyser, photo, Path(name)) for photo, name in photos]
    digests = {photo_digest(image): number for number, image in enumerate(images, 1)}
    scored_too = [f"{look.path} is image {digests[look.digest]} itself" for look in looks if look.digest in digests]
    yield from checked([looks], as_they_are, more=scored_too)
    unseen, trained = compared_faces(looks)
    scores = []
    for count, (image, prompt) in enumerate(zip(images, named, strict=True), 1):
        scores.append(score_image("the person", prompt, analyser.embeddings(image), unseen, trained))
        yield Step(count, len(images))
    return PictureReport(
        summarized(scores, [f"image {count}" for count in range(1, len(images) + 1)], analyser), scores
    )


def summarized(scores: Sequence[ImageScore], names: Sequence[str], analyser: FaceAnalyser) -> ImageReport:
    """Of images with these names; both ways of counting those without a face, side by side."""

    def means(score: Score) -> dict[str, float]:
        by_policy = {misses: identity_means(scores, score, misses) for misses in MISSES}
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
        without_a_face=[name for name, score in zip(names, scores, strict=True) if not score.faces],
    )
