"""How like a person are generated images, from any method? R-FaceSim of folders of pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...config import FEWEST_PEOPLE, Phase, Step, UserError
from ...measure.faces import FaceAnalyser, load_faces
from ...measure.intervals import Interval, bootstrap
from ...measure.similarity import ImageScore, Misses, Score, detection_rate, identity_means, score_image
from ...store.folders import people_in, pictures_in, skipped
from ...store.images import photo_digest, read_photo, size_of
from ...store.pictures import SHEET, made_here
from ...store.tables import read_image_prompts
from .. import Job
from .faces import all_embeddings
from .photos import Look, compared_faces, look_at, problems_of, refuse_odd, said_of_turned
from .prompts import WholeImage, WholeReport, evaluate_whole


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
class LeftOut:
    """A picture among the images that was not asked for."""

    file: str
    why: str


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
    if turned := said_of_turned([look for of_person in looks.values() for look in of_person]):
        yield Phase(turned)
    wanted, left_out = wanted_images(people, looks, images, listed)
    for picture in left_out:
        yield Phase(f"left out: {picture.file} ({picture.why})")
    odd = problems_of(list(looks.values()))
    refuse_odd(odd, as_they_are)
    for problem in odd:
        yield Phase(f"as it is: {problem}")
    asked = asked_of([path for _, path in wanted], images, prompts, listed)
    yield Phase(f"{len(people)} {'people' if len(people) > 1 else 'person'}, {len(wanted)} images")
    real = {person: compared_faces(of_person) for person, of_person in looks.items()}
    scores: list[ImageScore] = []
    all_faces = all_embeddings(analyser, [path for _, path in wanted])
    for (person, path), faces in zip(wanted, all_faces, strict=True):
        scores.append(score_image(person.name, group_of(path, asked), faces, *real[person]))
        yield Step(len(scores), len(wanted))
    files = [path.relative_to(images).as_posix() for _, path in wanted]
    without = [file for file, score in zip(files, scores, strict=True) if not score.faces]
    report = replace(
        summarized(scores, without, analyser),
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
class Person:
    """Where one person's pictures are."""

    name: str
    images: Path
    photos: Path
    reference: Path

    def held_out(self) -> list[Path]:
        """The photos that were not trained on, at least one."""
        paths = pictures_in(self.photos)
        if not paths:
            raise UserError(f"{self.photos} has no photo; held-out photos of {self.name} are needed.")
        return paths


def people_of(images: Path, photos: Path, reference: Path) -> list[Person]:
    """One person, or one for each sub-folder of `images`; whatever is missing is named at once."""
    if photos.exists() and photos.samefile(images):
        raise UserError(f"--photos is {photos}, the folder that is scored: give photos of the person, not images.")
    if pictures_in(images):
        return [Person(images.name, images, photos, reference)]
    names = [path.name for path in people_in(images) if pictures_in(path)]
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


def wanted_images(
    people: Sequence[Person], looks: Mapping[Person, Sequence[Look]], images: Path, listed: Mapping[str, str] | None
) -> tuple[list[tuple[Person, Path]], list[LeftOut]]:
    """(what is scored, what lies beside it): images made with a LoRA or by other programs, and those of a table.

    Where all images were made without a LoRA, they are what was asked for.
    """
    wanted, left_out = [], []
    for person in people:
        paths = pictures_in(person.images)
        made = {path: made_here(path) for path in paths}
        known = known_photos(paths, looks[person])
        if len(looks[person]) > 2 and {look.path for look in looks[person][1:]} <= set(known.values()):
            raise UserError(
                f"All photos of {person.photos} are among the images of {person.images}: give photos of the person."
            )
        reasons = {
            path: None if listed and path.relative_to(images).as_posix() in listed else why_left_out(path, made, known)
            for path in paths
        }
        if BARE in reasons.values() and not {None} & set(reasons.values()):
            reasons = {path: None if why == BARE else why for path, why in reasons.items()}
        for path, why in reasons.items():
            if why is None:
                wanted.append((person, path))
            else:
                left_out.append(LeftOut(path.relative_to(images).as_posix(), why))
        if not {None} & set(reasons.values()):
            named = "; ".join(f"{path.name} ({why})" for path, why in list(reasons.items())[:5])
            raise UserError(f"{person.images} has no image to score: {named}.")
    return wanted, left_out


BARE = "made without a LoRA"


def why_left_out(path: Path, made: Mapping[Path, Mapping[str, Any] | None], known: Mapping[Path, Path]) -> str | None:
    """Why a picture is no image to score; None for one that is."""
    metadata = made[path]
    if path in known:
        return f"it is the photo {known[path]}"
    if metadata is not None and metadata.get("kind") == SHEET:
        return "a page of images"
    if metadata is not None:
        return BARE if metadata.get("lora", "") is None else None
    twin = path.with_name(path.stem.removesuffix("-base") + path.suffix)
    if twin != path and twin in made:
        return BARE
    if path.stem == SHEET:
        return "a page of images"
    return "it does not say how it was made, as the others do" if any(made.values()) else None


def known_photos(paths: Sequence[Path], looks: Sequence[Look]) -> dict[Path, Path]:
    """Images that are photos which images are compared with: the same pixels, in any lossless file."""
    photos = {look.digest: look.path for look in looks}
    sizes = {size for look in looks for size in (size_of(look.path), size_of(look.path)[::-1])}
    found = {path: photos.get(photo_digest(read_photo(path))) for path in paths if size_of(path) in sizes}
    return {path: photo for path, photo in found.items() if photo}


def asked_of(
    paths: Sequence[Path], images: Path, table: Path | None, listed: Mapping[str, str] | None
) -> dict[Path, str | None]:
    """The prompt of each image: from the table, which then must name all of them, or from our own PNGs."""
    if listed is None:
        return {path: prompt_of(path) for path in paths}
    names = {path: path.relative_to(images).as_posix() for path in paths}
    if absent := [name for name in names.values() if name not in listed]:
        raise UserError(
            f"{table} has no prompt for {len(absent)} of {len(paths)} images in {images}, such as {absent[0]}. Name "
            f"every image relative to that folder; {table} begins with {next(iter(listed))}."
        )
    return {path: listed[name] for path, name in names.items()}


def prompt_of(path: Path) -> str | None:
    """What one of our PNGs says it shows."""
    prompt = (made_here(path) or {}).get("prompt")
    return prompt if isinstance(prompt, str) else None


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
