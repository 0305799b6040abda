"""Real photos through the base's autoencoder: the most that the faces of its images can be like the person."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ...backbones.protocol import Backbone
from ...config import Phase, Step
from ...measure.faces import FaceAnalyser
from ...method.crops import Box
from ...store.cache import Cache
from ...store.images import read_photo, resize_crop
from ...store.manifest import Identity, Photo
from .. import Job
from .plan import Plan


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
