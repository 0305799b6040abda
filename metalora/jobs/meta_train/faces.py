"""The largest face of each photo of stage 1: its embedding, and where its head is, so that the loss can count it most.

What surrounds people is chance: which wall, which light. Faces are found once and kept in the cache, a file a person.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ...config import Phase, Step, UserError
from ...config_meta_train import MetaTrainConfig
from ...measure.faces import load_faces
from ...method import crops
from ...method.crops import Box
from ...method.world import World
from ...store.cache import Cache
from ...store.identities import Identity, Photo, refuse
from ...store.images import read_photo
from .. import Job
from ..photos import HEAD, Crop

NAMED = 5  # photos of one message


class Faces(NamedTuple):
    """The largest face of each of someone's photos.

    boxes [photos, 4], in the photo's pixels, of no size where no face was found; sizes [photos, 2], width and height of
    the photo; embeddings [photos, d].
    """

    boxes: Tensor
    sizes: Tensor
    embeddings: Tensor

    def of(self, photos: Sequence[int]) -> "Faces":
        """Those of some of the photos."""
        return Faces(*(part[list(photos)] for part in self))

    def found(self) -> list[bool]:
        """Whether each photo shows a face."""
        return (self.boxes[:, 2] > self.boxes[:, 0]).tolist()


def found_faces(
    identities: Sequence[Identity], source: Path, config: MetaTrainConfig, cache: Cache, world: World
) -> Job[dict[str, Faces]]:
    """By person. Every process looks at its share of those who are not in the cache.

    Photos that cannot be read are all in one message.
    """
    analyser = load_faces(config.faces)
    keys = {
        one.name: Cache.key_of_files(
            [photo.path for photo in one.photos], what="largest faces", analyser=analyser.name, digest=analyser.digest
        )
        for one in identities
    }
    own = [one for one in identities if keys[one.name] not in cache][world.rank :: world.size]
    if own:
        yield Phase(f"finding faces on {sum(len(one.photos) for one in own)} photos")
    problems: list[str] = []
    for count, one in enumerate(own, 1):
        photos, unreadable = _read(one)
        problems.extend(unreadable)
        if problems:
            continue  # nothing will come of it: look for more of them
        seen = [analyser.find(photo)[:1] for photo in photos]
        vectors = analyser.vectors(
            [analyser.cut(photo, face) for photo, faces in zip(photos, seen, strict=True) for face in faces]
        )
        boxes = torch.tensor([faces[0].box if faces else (0.0, 0.0, 0.0, 0.0) for faces in seen])
        embeddings = torch.zeros(len(photos), vectors.shape[-1])
        embeddings[[bool(faces) for faces in seen]] = vectors
        sizes = torch.tensor([photo.shape[:0:-1] for photo in photos])
        cache.put(keys[one.name], Faces(boxes, sizes, embeddings)._asdict())
        yield Step(count, len(own))
    refuse(source, problems)
    world.wait()
    return {name: Faces(**cache.get(key)) for name, key in keys.items()}


def _read(one: Identity) -> tuple[list[Tensor], list[str]]:
    """(someone's photos, what is wrong with those that cannot be read)"""
    photos, problems = [], []
    for photo in one.photos:
        try:
            photos.append(read_photo(photo.path))
        except UserError as error:
            problems.append(str(error).rstrip("."))
    return photos, problems


def usable(
    identities: Sequence[Identity], faces: Mapping[str, Faces]
) -> tuple[list[Identity], dict[str, Faces], list[str]]:
    """Photos with a face, each once, of people who have two of them: one to make heads from, another to judge them.

    With their faces; and in words, who and what was left out.
    """
    kept, of_kept, faceless, twice, alone = [], {}, [], [], []
    for one in identities:
        photos: dict[str, int] = {}
        for index, (photo, found) in enumerate(zip(one.photos, faces[one.name].found(), strict=True)):
            digest = Cache.key_of_files([photo.path])
            if not found:
                faceless.append(photo)
            elif digest in photos:
                twice.append(photo)
            else:
                photos[digest] = index
        chosen = list(photos.values())
        if len(chosen) > 1:
            kept.append(replace(one, photos=tuple(one.photos[index] for index in chosen)))
            of_kept[one.name] = faces[one.name].of(chosen)
        else:
            alone.append(one.name)
    said = [_said(faceless, "show no face that was found"), _said(twice, "are copies of another photo of the person")]
    if alone:
        said.append(
            f"left out {len(alone)} people who have fewer than two photos with a face: {', '.join(alone[:NAMED])}"
            + (", ..." if len(alone) > NAMED else "")
        )
    return kept, of_kept, [text for text in said if text]


def _said(photos: Sequence[Photo], why: str) -> str:
    if not photos:
        return ""
    names = ", ".join(f"{photo.path.parent.name}/{photo.path.name}" for photo in photos[:NAMED])
    return f"left out {len(photos)} photos that {why}: {names}{', ...' if len(photos) > NAMED else ''}"


def head_on(faces: Faces, photo: int, frame: Crop, size: tuple[int, int]) -> Box:
    """Where the head lies on what is trained on of a photo, which has this (width, height); nowhere without a face."""
    box = Box(*faces.boxes[photo].tolist())
    if box.right <= box.left:
        return Box(0.0, 0.0, 0.0, 0.0)
    return crops.seen_in(crops.grown(box, HEAD), frame.box, size)


def cell_weights(head: Box, background: float, height: int, width: int, mirrored: bool) -> Tensor:
    """[1, height, width], what each cell of a photo's latents counts: 1 on the head (in cells), `background` around."""
    weights = torch.where(crops.cells_within(torch.tensor(head), height, width), 1.0, background)
    return weights.flip(2) if mirrored else weights
