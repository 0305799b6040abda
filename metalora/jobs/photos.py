"""From photo files to what stage 2 learns from: crops planned around the face, encoded once, kept in the cache.

Is a photo turned? A phone that loses the EXIF note leaves a portrait on its side, and YuNet finds a face there too. It
lays its landmarks upright into every face, so they do not tell; its score does. On 187 photos of one person, rendered
and real, all four ways: the upright one has the highest score, 0.90 and more; sideways it is at most 0.90, upside down
0.92. Only where the first score is below `SURE` the other three ways are looked at.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..backbones.protocol import Backbone, Denoiser, Prompt
from ..config import CropConfig, GenerateConfig, PersonalizeConfig, Phase, Step, UserError
from ..measure.faces import Face, FaceAnalyser, choose_face, pixels
from ..measure.sface import SIDES, YuNet, with_longer_side
from ..method import crops
from ..method.crops import RATIOS, SCALES, SQUARE, Box, Ratio
from ..method.personalize import TrainingImages
from ..store import files
from ..store.cache import Cache
from ..store.images import photo_digest, read_photo, resize_crop
from ..store.text import read_text
from . import Job

SHOWN = 10  # prompts of one sentence
SURE = 0.925  # no turned photo had this
ENOUGH = 0.88  # a face that is upright after turning; below it, all four ways may be wrong
MARGIN = 0.01
TURNS = {1: "a quarter turn to the left", 2: "half a turn", 3: "a quarter turn to the right"}
HEAD = 1.6  # times the face's box, which ends at the forehead, the chin and the cheeks


@dataclass(frozen=True)
class Crop:
    """A box on a photo and the size (width, height) it is trained at."""

    box: Box
    size: tuple[int, int]


@dataclass(frozen=True)
class PlannedPhoto:
    """A photo [3, H, W] with its crops; `left_out` would have to be enlarged too much."""

    photo: Tensor
    digest: str
    face: Face | None  # None: none was looked for
    crops: list[Crop]
    left_out: list[Box]
    drawn: Tensor | None = None  # [H, W] in 0..1: where the head is, where somebody says it
    turned: int = 0  # quarter turns to the left that it was given
    caption: str = ""  # its own, in the place of the run's

    def image(self, crop: Crop) -> Tensor:
        """The crop's pixels [3, h, w]."""
        return resize_crop(self.photo, self.taken(crop), *crop.size)

    def taken(self, crop: Crop) -> Box:
        """What of the photo the crop shows: its box, without what its size has no room for."""
        return crops.trimmed(crop.box, crop.size[0] / crop.size[1])

    def head(self, crop: Crop, height: int, width: int) -> Tensor:
        """[height, width] in 0..1: how much of each cell of the crop's latents counts as head.

        Around a face that is 1 where the middle of a cell lies within `HEAD` times its box, else 0.
        """
        if self.drawn is not None:
            drawn = resize_crop(self.drawn.expand(3, -1, -1), self.taken(crop), *crop.size)[:1]
            return nn.functional.adaptive_avg_pool2d(drawn, (height, width))[0]
        assert self.face is not None
        head = crops.seen_in(crops.grown(self.face.box, HEAD), self.taken(crop), (width, height))
        return crops.cells_within(torch.tensor(head), height, width)[0].float()

    def mask(self, crop: Crop, cell: int) -> Tensor:
        """[h, w] at the crop's own size: its head in cells of so many pixels; all of it where no face was found."""
        width, height = crop.size
        if self.face is None and self.drawn is None:
            return torch.ones(height, width)
        return self.head(crop, height // cell, width // cell).repeat_interleave(cell, 0).repeat_interleave(cell, 1)


def plan_photo(path: Path, config: CropConfig, faces: FaceAnalyser | None, multiple: int) -> PlannedPhoto:
    """The crops of a photo file around the chosen face (paper, supplement: up to 25), or the whole of it."""
    if config.learn_from == "whole":
        return whole_pixels(read_photo(path), path.name, config, multiple, faces)
    assert faces is not None, "crops are planned around a face"
    ratios = (SQUARE,) if config.learn_from == "square" else RATIOS
    scales = [scale for scale in SCALES if scale >= config.tightest]
    return plan_pixels(read_photo(path), path.name, config, faces, multiple, ratios, scales)


def caption_beside(path: Path, config: PersonalizeConfig) -> str:
    """What a photo's caption file says, `ada.txt` beside `ada.jpg`, filled in as the run's caption is; "" without."""
    text = path.with_suffix(".txt")
    said = read_text(text, "a caption file").strip() if text.is_file() else ""
    return replace(config, caption=said).prompt if said else ""


def upright(photo: Tensor, name: str, turn: str) -> tuple[Tensor, int]:
    """(the photo, how many quarter turns to the left it was given); a UserError for a turned one that may not be."""
    turns = 0 if turn == "keep" else quarter_turns(photo)
    if turns and turn == "refuse":
        raise UserError(
            f"{name} is turned: its face is upright after {TURNS[turns]}. Turn it and save it, or say --turn auto; "
            "--turn keep learns from it as it is."
        )
    return (photo.rot90(turns, (1, 2)).contiguous() if turns else photo), turns


def quarter_turns(photo: Tensor) -> int:
    """How many quarter turns to the left, as torch.rot90 makes them, set the faces of a photo upright; 0 in doubt."""
    image = pixels(photo)
    image = with_longer_side(image, min(max(image.shape[:2]), SIDES[-1]))
    scores = [_best(image)]
    if scores[0] >= SURE:
        return 0
    scores += [_best(np.ascontiguousarray(np.rot90(image, turns))) for turns in TURNS]
    turns = int(np.argmax(scores))
    return turns if scores[turns] >= max(ENOUGH, scores[0] + MARGIN) else 0


def _best(image: np.ndarray) -> float:
    return float(_detector().find(image).scores.max(initial=0.0))


@functools.cache
def _detector() -> YuNet:
    return YuNet()


def said_of_turns(planned: Sequence[PlannedPhoto], names: Sequence[str]) -> str | None:
    """A sentence that names the photos that were turned."""
    turned = [f"{name} by {TURNS[one.turned]}" for one, name in zip(planned, names, strict=True) if one.turned]
    return f"turned: {', '.join(turned)}" if turned else None


def plan_pixels(
    photo: Tensor,
    name: str,
    config: CropConfig,
    faces: FaceAnalyser,
    multiple: int,
    ratios: Sequence[Ratio] = RATIOS,
    scales: Sequence[float] = SCALES,
) -> PlannedPhoto:
    """The crops of a photo [3, H, W] around its chosen face; `name` is what a message calls it."""
    photo, turned = upright(photo, name, config.turn)
    face = choose_face(faces.find(photo), config.face, name)
    boxes = crops.plan(face.box, photo.shape[2], photo.shape[1], ratios, scales)
    planned = [_crop(box, config, multiple) for box in boxes]
    kept = [crop for crop in planned if _enlarged(crop) <= config.max_upscale]
    if not kept:
        raise UserError(
            f"{name}: the face is {face.box.width:.0f} x {face.box.height:.0f} pixels, too small to train at "
            f"{config.resolution} px: the largest crop would be enlarged {min(map(_enlarged, planned)):.1f} times, "
            f"more than max_upscale {config.max_upscale}. Use a larger photo, or lower --resolution."
        )
    left_out = [crop.box for crop in planned if crop not in kept]
    return PlannedPhoto(photo, photo_digest(photo), face, kept, left_out, turned=turned)


def whole_pixels(
    photo: Tensor, name: str, config: CropConfig, multiple: int, faces: FaceAnalyser | None
) -> PlannedPhoto:
    """A photo [3, H, W] itself as the only crop: what a plain LoRA trains on. With `faces`, its face is chosen too."""
    photo, turned = upright(photo, name, config.turn)
    crop = _crop(Box(0, 0, photo.shape[2], photo.shape[1]), config, multiple)
    if _enlarged(crop) > config.max_upscale:
        raise UserError(
            f"{name} is {photo.shape[2]} x {photo.shape[1]} pixels, too small to train at {config.resolution} px "
            f"(enlarged {_enlarged(crop):.1f} times, max_upscale is {config.max_upscale}). Lower --resolution."
        )
    face = choose_face(faces.find(photo), config.face, name) if faces else None
    return PlannedPhoto(photo, photo_digest(photo), face, [crop], [], turned=turned)


def crop_latents(photos: Sequence[PlannedPhoto], backbone: Backbone, flips: bool, cache: Cache) -> Job[list[Tensor]]:
    """[views, c, h, w] for each crop: as it is and, with flips, mirrored. The autoencoder is loaded only for a miss."""
    views = [
        (photo, crop, mirrored) for photo in photos for crop in photo.crops for mirrored in (False, True)[: 1 + flips]
    ]
    keys = [
        cache.key(
            what="latent",
            photo=photo.digest,
            box=list(crop.box),
            size=list(crop.size),
            mirrored=mirrored,
            autoencoder=backbone.fingerprint("autoencoder"),
        )
        for photo, crop, mirrored in views
    ]
    missing = [index for index, key in enumerate(keys) if key not in cache]
    if missing:
        yield Phase(f"encoding {len(missing)} crops")
        with backbone.autoencoder() as autoencoder:
            for count, index in enumerate(missing, 1):
                photo, crop, mirrored = views[index]
                image = photo.image(crop)
                cache.put(keys[index], {"latent": autoencoder.encode(image.flip(-1) if mirrored else image)})
                yield Step(count, len(missing))
    latents = [cache.get(key)["latent"] for key in keys]
    return [torch.stack(latents[start : start + 1 + flips]) for start in range(0, len(latents), 1 + flips)]


def head_weights(photos: Sequence[PlannedPhoto], latents: Sequence[Tensor], background: float) -> list[Tensor]:
    """[views, 1, h, w] for each crop's latents: what a cell counts, 1 on the head and `background` around it.

    An empty list where all count the same.
    """
    if background == 1:
        return []
    shown = [(photo, crop) for photo in photos for crop in photo.crops]
    weights = []
    for (photo, crop), views in zip(shown, latents, strict=True):
        head = photo.head(crop, *views.shape[2:])
        counts = torch.lerp(torch.full_like(head, background), torch.ones_like(head), head)  # exact at 0 and at 1
        weights.append(torch.stack([counts, counts.flip(1)][: len(views)]).unsqueeze(1))
    return weights


def encoded_prompts(prompts: Sequence[str], backbone: Backbone, cache: Cache) -> Job[list[str]]:
    """The key of each prompt's embeddings, which are in the cache from then on.

    The text encoders are loaded only for a miss; what is not read of a prompt is said.
    """
    if unread := unread_ends(prompts, backbone):
        yield Phase(unread)
    encoders = backbone.fingerprint("text_encoders")
    keys = [cache.key(what="prompt", text=text, encoders=encoders) for text in prompts]
    missing = {key: text for key, text in zip(keys, prompts, strict=True) if key not in cache}
    if missing:
        yield Phase(f"encoding {len(missing)} prompt{'s' if len(missing) > 1 else ''}")
        with backbone.text_encoders() as encode:
            for count, (key, text) in enumerate(missing.items(), 1):
                cache.put(key, encode(text))
                yield Step(count, len(missing))
    return keys


def prompt_embeddings(prompts: Sequence[str], backbone: Backbone, cache: Cache) -> Job[list[Prompt]]:
    """The embeddings of each prompt."""
    keys = yield from encoded_prompts(prompts, backbone, cache)
    return [cache.get(key) for key in keys]


def prior_images(
    denoiser: Denoiser,
    prompt: Prompt,
    backbone: Backbone,
    config: PersonalizeConfig,
    crop_config: CropConfig,
    cache: Cache,
) -> Job[TrainingImages]:
    """What the base itself makes of the class (DreamBooth's prior preservation), as latents: nothing is decoded."""
    sampling, size = GenerateConfig(), (crop_config.resolution // backbone.multiple * backbone.multiple,) * 2
    latents: list[Tensor] = []
    for index in range(config.prior_images):
        key = cache.key(
            what="prior",
            prompt=files.digest_of_tensors(prompt),
            size=list(size),
            seed=index,
            steps=sampling.sampling_steps,
            guidance=sampling.guidance,
            transformer=backbone.fingerprint("transformer"),
        )
        if key not in cache:
            yield Phase(f"the base's own image {index + 1} of {config.prior_images}, for prior preservation")
            made = yield from denoiser.sample(prompt, size, sampling.sampling_steps, sampling.guidance, seeds=[index])
            cache.put(key, {"latent": made})
        latents.append(cache.get(key)["latent"])
    return TrainingImages(latents, prompt)


def unread_ends(prompts: Sequence[str], backbone: Backbone) -> str | None:
    """A sentence that names the prompts of which the base reads only the beginning; None where it reads all."""
    ends = {prompt: end for prompt in dict.fromkeys(prompts) if (end := backbone.unread(prompt))}
    if not ends:
        return None
    shown = [f"{prompt!r} is read without {end!r}" for prompt, end in list(ends.items())[:SHOWN]]
    more = f"; and {len(ends) - SHOWN} more" if len(ends) > SHOWN else ""
    return f"{backbone.name} reads {backbone.max_tokens} tokens of a prompt: {'; '.join(shown)}{more}"


def _crop(box: Box, config: CropConfig, multiple: int) -> Crop:
    return Crop(box, crops.training_size(box.width / box.height, config.resolution, multiple))


def _enlarged(crop: Crop) -> float:
    return crops.upscale(crops.trimmed(crop.box, crop.size[0] / crop.size[1]), crop.size)
