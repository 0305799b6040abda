"""From photo files of many people to what stage 1 learns from: checked whole, encoded once, streamed from disk."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from ..backbones.protocol import Autoencoder, Backbone, Prompt
from ..config import Phase, Step, UserError
from ..config_meta_train import MetaTrainConfig
from ..method import crops
from ..method.adaptability import HeldOut
from ..method.buckets import Person, Sample
from ..method.crops import RATIOS, Box
from ..method.meta_train import Batch, MetaTraining
from ..method.ranks import Ranks
from ..store import files
from ..store.cache import Cache
from ..store.identities import Identity, read_identities, refuse
from ..store.images import read_photo, resize_crop
from ..store.latent_shards import LatentShards
from . import Job

KEPT_PROMPTS = 32  # of captions, in memory; FLUX's are 4 MB each
UNSEEN = 4  # photos of a held-out person that are measured
ALL = "all"


@dataclass(frozen=True)
class People:
    """Those to train on and those held out; their latents and prompts stay on disk until a batch wants them."""

    train: list[Person]
    held_out: list[Person]
    identities: dict[str, Identity]
    keys: dict[str, str]  # of shards, by name
    shards: LatentShards
    cache: Cache
    backbone: Backbone
    config: MetaTrainConfig

    @property
    def digest(self) -> str:
        """Changes with anyone's photos or captions."""
        captions = [self.caption(name, photo, False) for name in self.keys for photo in range(self.photos(name))]
        return files.digest("\n".join([*self.keys.values(), *captions]).encode())

    def photos(self, name: str) -> int:
        """How many someone has."""
        return len(self.identities[name].photos)

    def caption(self, name: str, photo: int, mirrored: bool) -> str:
        """The photo's own caption, or the class's."""
        who = self.identities[name]
        one = who.photos[photo]
        own = (one.mirrored_caption if mirrored else None) or one.caption
        return own if own and self.config.own_captions else self.config.caption_of(kind_of(who, self.config))

    def batches(self, training: MetaTraining, steps: Iterable[tuple[int, int, list[Sample]]]) -> Iterator[Batch]:
        """This process's share of each step, read from disk."""
        prompt_of = self.prompts()
        for step, visit, samples in steps:
            bucket, own = training.bucket(visit), training.own(samples, visit)
            names = [bucket[sample.position].name for sample in own]
            latents = [
                self.shards.read(self.keys[name], sample.photo, int(sample.mirrored))
                for name, sample in zip(names, own, strict=True)
            ]
            prompts = [
                prompt_of(self.caption(name, sample.photo, sample.mirrored))
                for name, sample in zip(names, own, strict=True)
            ]
            device = self.backbone.device
            stacked = torch.stack(latents).to(device) if latents else torch.empty(0, device=device)
            yield Batch(step, own, stacked, joined(prompts, device) if prompts else None)

    def held_out_people(self) -> list[HeldOut]:
        """The first photo to adapt to, the next few to measure on."""
        prompt_of, device = self.prompts(), self.backbone.device
        return [
            HeldOut(
                person.name,
                torch.stack(
                    [self.shards.read(self.keys[person.name], 0, view) for view in range(1 + self.config.flips)]
                ).to(device),
                joined(
                    [prompt_of(self.caption(person.name, 0, view == 1)) for view in range(1 + self.config.flips)],
                    device,
                ),
                [
                    (
                        self.shards.read(self.keys[person.name], photo, 0).to(device),
                        prompt_of(self.caption(person.name, photo, False)),
                    )
                    for photo in range(1, min(len(person.sizes), 1 + UNSEEN))
                ],
            )
            for person in self.held_out
        ]

    def prompts(self):  # type: ignore[no-untyped-def]  # lru_cache names its type badly
        """caption -> embeddings, the latest kept in memory."""
        encoders = self.backbone.fingerprint("text_encoders")

        @lru_cache(KEPT_PROMPTS)
        def prompt_of(caption: str) -> Prompt:
            return Prompt(**self.cache.get(Cache.key(what="prompt", text=caption, encoders=encoders)))

        return prompt_of


def prepared(source: Path, backbone: Backbone, config: MetaTrainConfig, cache: Cache, ranks: Ranks) -> Job[People]:
    """Read, check and encode; every problem of the data is one UserError before anything is encoded."""
    identities = limited(chosen(read_identities(source), config, source), config)
    shards = LatentShards(cache.folder / "people")
    yield Phase(f"looking at {sum(len(one.photos) for one in identities)} photos of {len(identities)} people")
    settings: dict[str, str | int | float | bool] = {
        "resolution": config.resolution,
        "flips": config.flips,
        "autoencoder": backbone.fingerprint("autoencoder"),
        "precision": str(precision(backbone)),
    }
    keys = {one.name: shards.key([photo.path for photo in one.photos], **settings) for one in identities}
    missing = [one for one in identities if keys[one.name] not in shards]
    own = missing[ranks.index :: ranks.count]
    yield from check(own, source, config, backbone.multiple)
    ranks.wait()
    yield from encode(own, keys, shards, backbone, config)
    people = People([], [], {one.name: one for one in identities}, keys, shards, cache, backbone, config)
    captions = {
        people.caption(one.name, photo, mirrored)
        for one in identities
        for photo in range(len(one.photos))
        for mirrored in (False, True)[: 1 + config.flips]
    }
    if ranks.index == 0:
        yield from embed(sorted(captions), backbone, cache)
    ranks.wait()  # what the others encoded is there
    scale = 8  # pixels of a latent
    everyone = [
        Person(
            one.name,
            kind_of(one, config),
            tuple((shape[-1] * scale, shape[-2] * scale) for shape in shards.shapes(keys[one.name])),
        )
        for one in identities
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
    return people


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


def kind_of(one: Identity, config: MetaTrainConfig) -> str:
    """The class of someone, as captions say it."""
    return one.kind or ("person" if config.class_name == ALL else config.class_name)


def precision(backbone: Backbone) -> torch.dtype:
    """Of latents on disk: half is finer than the base's bf16 and takes half the room."""
    return torch.float32 if backbone.dtype == torch.float32 else torch.float16


def nearest_size(width: int, height: int, config: MetaTrainConfig, multiple: int) -> tuple[int, int]:
    """The training size whose aspect ratio, one of five, is nearest: so batches of one size can be found."""
    ratio = min((w / h for w, h in RATIOS), key=lambda one: max(one * height / width, width / (one * height)))
    return crops.training_size(ratio, config.resolution, multiple)


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
            size = nearest_size(width, height, config, multiple)
            enlarged = crops.upscale(crops.trimmed(Box(0, 0, width, height), size[0] / size[1]), size)
            if enlarged > config.max_upscale:
                problems.append(f"{photo.path} is {width} x {height}, to be enlarged {enlarged:.1f} times")
        yield Step(count, len(own))
    refuse(source, problems)


def encode(
    own: Sequence[Identity], keys: dict[str, str], shards: LatentShards, backbone: Backbone, config: MetaTrainConfig
) -> Job[None]:
    """A shard for everyone who has none. The autoencoder is loaded only if there is someone."""
    if not own:
        return
    yield Phase(f"encoding {sum(len(one.photos) for one in own)} photos")
    with backbone.autoencoder() as autoencoder:
        for count, one in enumerate(own, 1):
            latents = [views(photo.path, autoencoder, backbone, config) for photo in one.photos]
            shards.put(keys[one.name], latents)
            yield Step(count, len(own))


def views(path: Path, autoencoder: Autoencoder, backbone: Backbone, config: MetaTrainConfig) -> torch.Tensor:
    """[views, c, h, w]: the photo and, with flips, its mirror image."""
    photo = read_photo(path)
    height, width = photo.shape[1:]
    size = nearest_size(width, height, config, backbone.multiple)
    image = resize_crop(photo, crops.trimmed(Box(0, 0, width, height), size[0] / size[1]), *size)
    images = [image, image.flip(-1)][: 1 + config.flips]
    return torch.stack([autoencoder.encode(one) for one in images]).to(precision(backbone))


def embed(captions: list[str], backbone: Backbone, cache: Cache) -> Job[None]:
    """Every caption's embeddings into the cache, not into memory. The text encoders are loaded once, if at all."""
    encoders = backbone.fingerprint("text_encoders")
    missing = [
        (key, text) for text in captions if (key := cache.key(what="prompt", text=text, encoders=encoders)) not in cache
    ]
    if not missing:
        return
    yield Phase(f"encoding {len(missing)} captions")
    with backbone.text_encoders() as encoded:
        for count, (key, text) in enumerate(missing, 1):
            cache.put(key, encoded(text)._asdict())
            yield Step(count, len(missing))


def joined(prompts: Sequence[Prompt], device: torch.device) -> Prompt:
    """One prompt a sample as one batch."""
    return Prompt(*(torch.cat(parts).to(device) for parts in zip(*prompts, strict=True)))
