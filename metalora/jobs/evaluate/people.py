"""Whose images are scored, and which: what lies beside them is left out, and said."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...config import UserError
from ...store.folders import people_in, pictures_in
from ...store.images import photo_digest, read_photo, size_of
from ...store.near_duplicates import near_hashes, perceptual_hash
from ...store.pictures import SHEET, made_here
from .photos import Look, by_threads

BARE = "made without a LoRA"
PAGE = re.compile(rf"{SHEET}|(\w+[_-])?grid([_-]?\d+)?")  # ours, and as AUTOMATIC1111 and its kin name theirs


@dataclass(frozen=True)
class LeftOut:
    """A picture among the images that was not asked for."""

    file: str
    why: str


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
        held_out = looks[person][1:]
        if len(held_out) > 1 and {look.path for look in held_out} <= {*known.values(), *saved_again(held_out, paths)}:
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
    if PAGE.fullmatch(path.stem):
        return "a page of images"
    return "it does not say how it was made, as the others do" if any(made.values()) else None


def known_photos(paths: Sequence[Path], looks: Sequence[Look]) -> dict[Path, Path]:
    """Images that are photos which images are compared with: the same pixels, in any lossless file."""
    photos = {look.digest: look.path for look in looks}
    sizes = {size for look in looks for size in (size_of(look.path), size_of(look.path)[::-1])}
    found = {path: photos.get(photo_digest(read_photo(path))) for path in paths if size_of(path) in sizes}
    return {path: photo for path, photo in found.items() if photo}


def saved_again(photos: Sequence[Look], paths: Sequence[Path]) -> set[Path]:
    """The photos that show the same picture as one of the images, as another file or mirrored."""
    hashes = list(by_threads(lambda path: perceptual_hash(read_photo(path)), paths))
    bits, mirrored = ([*hashes, *(getattr(look, way) for look in photos)] for way in ("bits", "mirrored"))
    return {
        photos[other - len(paths)].path for one, other, _ in near_hashes(bits, mirrored) if one < len(paths) <= other
    }


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
