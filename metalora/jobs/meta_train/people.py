"""Those whom stage 1 trains on and holds out: their latents, prompts and faces, from disk batch by batch.

Of each photo the largest face counts: its embedding, and where its head is, so that the loss can count it most: what
surrounds people is chance, which wall, which light. Faces are found once and kept in the cache, a file a person.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from ...backbones.protocol import Backbone, Prompt
from ...config_meta_train import MetaTrainConfig
from ...measure import load_faces
from ...method import crops
from ...method.across_photos import Pair, PairBatch
from ...method.buckets import Person, Sample
from ...method.crops import RATIOS, Box
from ...method.flow import generator_of, joined
from ...method.meta_train import Batch, HeldOut, MetaTraining
from ...store import files
from ...store.cache import Cache
from ...store.identities import Identity
from ..photos import HEAD, Crop
from ..training_files import ALL

KEPT_PROMPTS = 32  # of captions, in memory; FLUX's are 4 MB each
UNSEEN = 4  # photos of a held-out person that are measured


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


@dataclass(frozen=True)
class People:
    """Those to train on and those held out; their latents and prompts stay on disk until a batch wants them."""

    train: list[Person]
    held_out: list[Person]
    identities: dict[str, Identity]
    keys: dict[str, str]  # of their latents in the cache, by name
    faces: dict[str, Faces]  # of everyone; nobody's where none were looked for
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

    def latent_shapes(self, name: str) -> list[tuple[int, ...]]:
        """[views, c, h, w] of each of someone's photos."""
        shapes = self.cache.shapes(self.keys[name])
        return [shapes[str(photo)] for photo in range(len(shapes))]

    def latents(self, name: str, photo: int, view: int = 0) -> Tensor:
        """[c, h, w], in float32, as it is or (view 1) mirrored."""
        return self.cache.get_row(self.keys[name], str(photo), view)

    def caption(self, name: str, photo: int, mirrored: bool) -> str:
        """The photo's own caption, or the class's."""
        who = self.identities[name]
        one = who.photos[photo]
        own = (one.mirrored_caption if mirrored else None) or one.caption
        return own or self.config.caption_of(kind_of(who, self.config))

    def shortened(self, name: str, photo: int, form: int) -> str:
        """One of the `caption_variants` shortened forms of the photo's caption (across-photos)."""
        return shortened(self.caption(name, photo, False), self.config, name, photo, form)

    @property
    def embedder(self) -> str:
        """What embedded the faces, and its file's hash; empty where no generator was made of them."""
        if self.config.objective != "across-photos":
            return ""
        analyser = load_faces(self.config.faces)
        return f"{analyser.name} {analyser.digest}"

    def weights(self, name: str, photo: int, mirrored: bool) -> Tensor | None:
        """[1, h, w], what each cell of a photo's latents counts in the loss; None where all count 1."""
        if self.config.background_weight == 1:
            return None
        height, width = self.latent_shapes(name)[photo][-2:]
        faces = self.faces[name]
        across, down = (int(side) for side in faces.sizes[photo])
        frame = framed(across, down, self.config, self.backbone.multiple)
        head = head_on(faces, photo, frame, (width, height))
        return cell_weights(head, self.config.background_weight, height, width, mirrored)

    def batches(self, training: MetaTraining, steps: Iterable[tuple[int, int, list[Sample]]]) -> Iterator[Batch]:
        """This process's share of each step, read from disk."""
        for step, visit, samples in steps:
            bucket, own = training.bucket(visit), training.own(samples, visit)
            yield Batch(step, own, *self.read([(bucket[one.position].name, one.photo, one.mirrored) for one in own]))

    def pair_batch(self, people: Sequence[Person], step: int, pairs: Sequence[Pair]) -> PairBatch:
        """Pairs of these people, read from disk: the faces of the photos A; of the photos B all else."""
        faces, photos, captions = [], [], []
        for slot, person, reference, target in pairs:
            name = people[person].name
            generator = generator_of(self.config.seed, "form", step, slot)
            form = int(torch.randint(self.config.caption_variants, (1,), generator=generator))
            faces.append(self.faces[name].embeddings[reference])
            photos.append((name, target, False))
            captions.append(self.shortened(name, target, form))
        own_faces = torch.stack(faces) if faces else torch.empty(0)
        slots = [pair.slot for pair in pairs]
        return PairBatch(step, slots, own_faces.to(self.backbone.device), *self.read(photos, captions))

    def held_out_people(self) -> list[HeldOut]:
        """The first photo to adapt to, the next few to measure on."""
        return [
            HeldOut(
                person.name,
                *self.read([(person.name, 0, mirrored) for mirrored in (False, True)[: 1 + self.config.flips]]),
                [self.read([(person.name, photo, False)]) for photo in range(1, min(len(person.sizes), 1 + UNSEEN))],
            )
            for person in self.held_out
        ]

    def read(
        self, photos: Sequence[tuple[str, int, bool]], captions: Sequence[str] = ()
    ) -> tuple[Tensor, Prompt | None, Tensor | None]:
        """Of photos (whose, which, mirrored): latents [b, c, h, w] and what their cells count on the device; prompts.

        Without captions, their own.
        """
        device, captions = self.backbone.device, captions or [self.caption(*photo) for photo in photos]
        latents = [self.latents(name, photo, int(mirrored)) for name, photo, mirrored in photos]
        weights = [one for photo in photos if (one := self.weights(*photo)) is not None]
        return (
            torch.stack(latents).to(device) if latents else torch.empty(0, device=device),
            joined([self.prompt_of(caption) for caption in captions]) if photos else None,
            torch.stack(weights).to(device) if weights else None,
        )

    @cached_property
    def prompt_of(self) -> Callable[[str], Prompt]:
        """caption -> embeddings, the latest kept in memory."""
        encoders = self.backbone.fingerprint("text_encoders")
        return lru_cache(KEPT_PROMPTS)(
            lambda caption: self.cache.get(Cache.key(what="prompt", text=caption, encoders=encoders))
        )


def framed(width: int, height: int, config: MetaTrainConfig, multiple: int) -> Crop:
    """The middle of a photo of this size, in the nearest of the aspect ratios: so batches of one size can be found."""
    ratio = min((w / h for w, h in RATIOS), key=lambda one: max(one * height / width, width / (one * height)))
    size = crops.training_size(ratio, config.resolution, multiple)
    return Crop(crops.trimmed(Box(0, 0, width, height), size[0] / size[1]), size)


def kind_of(one: Identity, config: MetaTrainConfig) -> str:
    """The class of someone, as captions say it."""
    return one.kind or ("person" if config.class_name == ALL else config.class_name)


def shortened(caption: str, config: MetaTrainConfig, *key: object) -> str:
    """The caption without some of its phrases, which commas part; the first stays, so a plain caption stays whole."""
    first, *phrases = caption.split(", ")
    tosses = torch.rand(len(phrases), generator=generator_of(config.seed, "caption", *key)).tolist()
    words = set(config.identity_words.split())
    kept = [
        phrase
        for phrase, toss in zip(phrases, tosses, strict=True)
        if toss >= (config.identity_dropout if words & set(phrase.split()) else config.phrase_dropout)
    ]
    return ", ".join([first, *kept])


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
