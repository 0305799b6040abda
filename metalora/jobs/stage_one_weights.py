"""Where the head is on each photo of stage 1, so that its loss can count what stage 2's counts.

What surrounds people is chance: which wall, which light. A loss in which the head counts more hears more of whom the
photo shows. Heads are found once and kept in the cache, a file a person.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..backbones.protocol import Backbone
from ..config import Phase, Step
from ..config_meta_train import MetaTrainConfig
from ..measure.faces import FaceAnalyser, load_faces
from ..method import crops
from ..method.crops import Box
from ..method.ranks import Ranks
from ..store.cache import Cache
from ..store.identities import Identity
from ..store.images import read_photo
from . import Job
from .photos import HEAD, Crop
from .stage_one_frames import framed

NOWHERE = Box(0.0, 0.0, 0.0, 0.0)  # a box without an inside: no face was found


def found_heads(
    identities: Mapping[str, Identity],
    keys: Mapping[str, str],
    backbone: Backbone,
    config: MetaTrainConfig,
    cache: Cache,
    ranks: Ranks,
) -> Job[dict[str, Tensor]]:
    """By person, a box [photos, 4] on each photo as it is trained on, its sides 0..1; nothing if all cells count 1."""
    if config.background_weight == 1:
        return {}
    places = {name: Cache.key(what="heads", photos=keys[name], grown=HEAD) for name in identities}
    missing = [name for name in identities if places[name] not in cache]
    own = missing[ranks.index :: ranks.count]
    if own:
        yield Phase(f"finding heads on {sum(len(identities[name].photos) for name in own)} photos")
        faces = load_faces()
        for count, name in enumerate(own, 1):
            photos = (read_photo(photo.path) for photo in identities[name].photos)
            boxes = [
                head(photo, framed(photo.shape[2], photo.shape[1], config, backbone.multiple), faces)
                for photo in photos
            ]
            cache.put(places[name], {"boxes": torch.tensor(boxes)})
            yield Step(count, len(own))
    ranks.wait()
    found = {name: cache.get(place)["boxes"] for name, place in places.items()}
    every = torch.cat(list(found.values()))
    if without := int((every == torch.tensor(NOWHERE)).all(dim=1).sum()):
        yield Phase(f"{without} of {len(every)} photos show no face that was found: they count as background")
    return found


def head(photo: Tensor, frame: Crop, faces: FaceAnalyser) -> Box:
    """Where the largest face's head lies on the frame, its sides 0..1; it may reach beyond it."""
    seen = faces.find(photo)
    return crops.seen_in(crops.grown(seen[0].box, HEAD), frame.box, (1, 1)) if seen else NOWHERE


def cell_weights(head: Tensor, background: float, height: int, width: int, mirrored: bool) -> Tensor:
    """[1, height, width], what each cell of a photo's latents counts: 1 on the head [4], `background` around it."""
    on_head = crops.cells_within(head * torch.tensor([width, height, width, height]), height, width)
    weights = torch.where(on_head, 1.0, background)
    return weights.flip(2) if mirrored else weights
