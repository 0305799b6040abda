"""From photo files of many people to what stage 1 learns from: checked whole, faces found, and encoded once."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ...backbones.protocol import Autoencoder, Backbone
from ...config import Phase, Step, UserError
from ...config_meta_train import MetaTrainConfig
from ...measure import load_faces
from ...method import crops
from ...method.buckets import Person
from ...method.world import World
from ...store import files
from ...store.cache import Cache
from ...store.identities import NOTHING_STARTED, Identity, Photo, read_identities
from ...store.images import read_photo, resize_crop
from ...store.text import refuse
from .. import Job
from ..photos import encoded_prompts
from ..training_files import ALL
from .people import Faces, People, framed, kind_of

NAMED = 5  # photos of one message


def prepared(source: Path, backbone: Backbone, config: MetaTrainConfig, cache: Cache, world: World) -> Job[People]:
    """Read, check and encode; every problem of the data is one UserError before anything is encoded."""
    identities = limited(chosen(read_identities(source), config, source), config)
    faces: dict[str, Faces] = {}
    if config.objective == "across-photos" or config.background_weight < 1:
        faces = yield from found_faces(identities, source, config, cache, world)
    if config.objective == "across-photos":
        identities, faces, left_out = usable(identities, faces)
        yield from map(Phase, left_out)
    elif without := sum(there is False for one in faces.values() for there in one.found()):
        yield Phase(f"{without} photos show no face that was found: all of each counts as background")
    yield Phase(f"looking at {sum(len(one.photos) for one in identities)} photos of {len(identities)} people")
    settings: dict[str, str | int | float | bool] = {
        "resolution": config.resolution,
        "flips": config.flips,
        "autoencoder": backbone.fingerprint("autoencoder"),
        "precision": str(precision(backbone)),
    }
    keys = {one.name: Cache.key_of_files([photo.path for photo in one.photos], **settings) for one in identities}
    missing = [one for one in identities if keys[one.name] not in cache]
    own = missing[world.rank :: world.size]
    yield from check(own, source, config, backbone.multiple)
    world.wait()
    yield from encode(own, keys, cache, backbone, config)
    by_name = {one.name: one for one in identities}
    people = People([], [], by_name, keys, faces, cache, backbone, config)
    if world.rank == 0:
        yield from encoded_prompts(captions_of(people), backbone, cache)
    world.wait()  # what the others encoded is there
    divide(people, source)
    return people


def captions_of(people: People) -> list[str]:
    """Everything that stage 1 will say."""
    if people.config.objective == "across-photos":
        photos = [(name, photo) for name in people.identities for photo in range(people.photos(name))]
        forms = range(people.config.caption_variants)
        return sorted({people.shortened(name, photo, form) for name, photo in photos for form in forms})
    views = (False, True)[: 1 + people.config.flips]
    photos = [(name, photo) for name in people.identities for photo in range(people.photos(name))]
    return sorted({people.caption(name, photo, mirrored) for name, photo in photos for mirrored in views})


def divide(people: People, source: Path) -> None:
    """Hold some out, by chance; train on the others."""
    scale, config = 8, people.config  # pixels of a latent
    everyone = [
        Person(
            name,
            kind_of(one, config),
            tuple((shape[-1] * scale, shape[-2] * scale) for shape in people.latent_shapes(name)),
        )
        for name, one in people.identities.items()
    ]
    with_unseen = [person for person in everyone if len(person.sizes) > 1]
    held_out = sorted(with_unseen, key=lambda person: drawn(person.name, config))[: config.validation_people]
    people.held_out.extend(held_out)
    people.train.extend(person for person in everyone if person not in held_out)
    if len(people.train) < 2:
        raise UserError(
            f"{source}: {len(everyone)} people, {len(held_out)} of them held out, leave {len(people.train)} to train "
            "on. Give more people or lower --validation-people."
        )


def chosen(identities: Sequence[Identity], config: MetaTrainConfig, source: Path) -> list[Identity]:
    """Those of the class; where nobody has one, everyone is of the class asked for."""
    kinds = sorted({one.kind for one in identities if one.kind})
    if not kinds or config.class_name == ALL:
        return list(identities)
    found = [one for one in identities if one.kind == config.class_name]
    if not found:
        raise UserError(
            f"{source} has nobody of class {config.class_name!r}, only {', '.join(kinds)}. "
            "Choose one with --class, or --class all."
        )
    return found


def limited(identities: list[Identity], config: MetaTrainConfig) -> list[Identity]:
    """Only as many as are asked for, and the held-out ones, who are the same whatever the limit is."""
    if not config.limit_people:
        return identities
    by_chance = sorted(identities, key=lambda one: (len(one.photos) < 2, drawn(one.name, config)))
    kept = {one.name for one in by_chance[: config.validation_people + config.limit_people]}
    return [one for one in identities if one.name in kept]


def drawn(name: str, config: MetaTrainConfig) -> str:
    """A person's place in a shuffled order that depends on the seed and the name alone."""
    return files.digest(f"{config.seed}/{name}".encode())


def precision(backbone: Backbone) -> torch.dtype:
    """Of latents on disk: half is finer than the base's bf16 and takes half the room."""
    return torch.float32 if backbone.dtype == torch.float32 else torch.float16


def check(own: Sequence[Identity], source: Path, config: MetaTrainConfig, multiple: int) -> Job[None]:
    """Open every photo that is not encoded yet; all that is wrong in one message."""
    problems = []
    for count, one in enumerate(own, 1):
        for photo in one.photos:
            try:
                height, width = read_photo(photo.path).shape[1:]
            except UserError as error:
                problems.append(str(error).rstrip("."))
                continue
            frame = framed(width, height, config, multiple)
            enlarged = crops.upscale(frame.box, frame.size)
            if enlarged > config.max_upscale:
                problems.append(f"{photo.path} is {width} x {height}, to be enlarged {enlarged:.1f} times")
        yield Step(count, len(own))
    refuse(str(source), problems, NOTHING_STARTED)


def encode(
    own: Sequence[Identity], keys: dict[str, str], cache: Cache, backbone: Backbone, config: MetaTrainConfig
) -> Job[None]:
    """An entry for everyone who has none. The autoencoder is loaded only if there is someone."""
    if not own:
        return
    yield Phase(f"encoding {sum(len(one.photos) for one in own)} photos")
    with backbone.autoencoder() as autoencoder:
        for count, one in enumerate(own, 1):
            latents = (views(photo.path, autoencoder, backbone, config) for photo in one.photos)
            cache.put(keys[one.name], {str(index): tensor for index, tensor in enumerate(latents)})
            yield Step(count, len(own))


def views(path: Path, autoencoder: Autoencoder, backbone: Backbone, config: MetaTrainConfig) -> Tensor:
    """[views, c, h, w]: the photo and, with flips, its mirror image."""
    photo = read_photo(path)
    frame = framed(photo.shape[2], photo.shape[1], config, backbone.multiple)
    image = resize_crop(photo, frame.box, *frame.size)
    images = [image, image.flip(-1)][: 1 + config.flips]
    return torch.stack([autoencoder.encode(one) for one in images]).to(precision(backbone))


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
    refuse(str(source), problems, NOTHING_STARTED)
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
