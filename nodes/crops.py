"""Augment Face Crops: what a person's photo is learned from (paper, supplement)."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

from comfy_api.latest import io
from torch import Tensor

from ..metalora.config import CropConfig, UserError
from ..metalora.jobs.crops import crop_sheet
from ..metalora.jobs.photos import Crop, PlannedPhoto, plan_pixels, whole_pixels
from ..metalora.measure import ANALYSERS, load_faces
from ..metalora.measure.faces import FaceAnalyser, numbered
from ..metalora.method.crops import RATIOS, SCALES, SQUARE, Ratio
from ..metalora.store.images import to_pil
from ..metalora.store.pictures import draw_boxes, table
from .bridge import execution
from .pictures import image_of, photos_of
from .running import work
from .sockets import schema, widget, widgets

CHOICES = ("only", "largest", *map(str, range(1, 11)))
MULTIPLE = 16  # pixels of a token of FLUX
CELL = 8  # pixels of a cell of its latents: masks end where cells do, and lose nothing on their way to them


class AugmentFaceCrops(io.ComfyNode):
    """A photo -> up to 25 crops around the face."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "MetaLoRA_AugmentFaceCrops",
            search_aliases=["crop face", "face detection", "augment photo"],
            inputs=[
                io.Image.Input("photo"),
                widget(CropConfig, "face", "largest", CHOICES),
                *widgets(CropConfig, "resolution", "max_upscale"),
                io.String.Input("ratios", default=", ".join(f"{a}:{b}" for a, b in RATIOS)),
                io.String.Input("scales", default=", ".join(f"{scale:g}" for scale in SCALES)),
                *widgets(CropConfig, "learn_from"),
                io.Combo.Input("finder", options=list(ANALYSERS)),
                *widgets(CropConfig, "turn", optional=True),
                io.String.Input("caption", default="", optional=True, force_input=True),
            ],
            outputs=[
                io.Image.Output(display_name="crops", is_output_list=True),
                io.Image.Output(display_name="sheet"),
                io.BBOX.Output(display_name="face_box"),
                io.Mask.Output(display_name="heads", is_output_list=True),
                io.String.Output(display_name="captions", is_output_list=True),
            ],
        )

    @classmethod
    def execute(
        cls,
        photo: Tensor,
        face: str,
        resolution: int,
        max_upscale: float,
        ratios: str,
        scales: str,
        learn_from: str,
        finder: str,
        turn: str = "refuse",
        caption: str = "",
    ) -> io.NodeOutput:
        config = CropConfig(face=face, resolution=resolution, max_upscale=max_upscale, turn=turn)
        with work(faces="finder"):
            photos = photos_of(photo)
            shapes = [SQUARE] if learn_from == "square" else ratios_of(ratios)
            sizes, analyser = scales_of(scales), load_faces(finder)
            planned = []
            for index, pixels in enumerate(photos, 1):
                called = f"photo {index}"
                with faces_shown(pixels, analyser):
                    if learn_from == "whole":
                        planned.append(whole_or_faceless(pixels, called, config, analyser))
                    else:
                        planned.append(plan_pixels(pixels, called, config, analyser, MULTIPLE, shapes, sizes))
            crops = [image_of(one.image(crop)) for one in planned for crop in one.crops]
            boxes = [
                (one.face.box.left, one.face.box.top, one.face.box.width, one.face.box.height)
                for one in planned
                if one.face is not None
            ]
            heads = [one.mask(crop, CELL)[None] for one in planned for crop in one.crops]
            return io.NodeOutput(crops, image_of(sheet(planned)), boxes, heads, [caption] * len(crops))


@contextmanager
def faces_shown(photo: Tensor, faces: FaceAnalyser) -> Iterator[None]:
    """Where a face cannot be chosen inside, the node shows the photo with its faces numbered."""
    try:
        yield
    except UserError:
        found = numbered(faces.find(photo))
        if len(found) > 1:
            execution.progress_bar()(1, 1, to_pil(draw_boxes(photo, [face.box for face in found])))
        raise


def whole_or_faceless(photo: Tensor, called: str, config: CropConfig, faces: FaceAnalyser) -> PlannedPhoto:
    """All of a photo, which may show no face."""
    found = faces.find(photo)
    if not found:
        logging.warning("Meta-LoRA: %s shows no face: all of it counts as the person.", called)
    return whole_pixels(photo, called, config, MULTIPLE, faces if found else None)


def sheet(planned: list[PlannedPhoto]) -> Tensor:
    """The sheet of one photo as the package draws it; of several, or of whole photos, a table."""
    if len(planned) == 1 and planned[0].face is not None:
        return crop_sheet(planned[0])
    return table([[(one.image(crop), size_of(one, crop)) for crop in one.crops] for one in planned])


def size_of(one: PlannedPhoto, crop: Crop) -> str:
    """A crop's caption, which does not pass over what was not found."""
    size = f"{crop.size[0]}x{crop.size[1]}"
    return size if one.face else f"{size}, no face found: all of it counts"


def ratios_of(text: str) -> list[Ratio]:
    """ "16:9, 4:3" as numbers."""
    side = "([1-9][0-9]{0,3})"
    found = [re.fullmatch(f"{side}:{side}", part.strip()) for part in text.split(",") if part.strip()]
    pairs = [pair for pair in found if pair]
    if not pairs or len(pairs) < len(found):
        raise UserError(f"ratios is {text!r}; shapes look like 16:9, 4:3, 1:1, 3:4, 9:16.")
    return [(int(pair[1]), int(pair[2])) for pair in pairs]


def scales_of(text: str) -> list[float]:
    """ "1.5, 2" as numbers."""
    try:
        scales = [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        scales = []
    if not scales or not all(0.5 <= scale <= 20 for scale in scales):
        raise UserError(f"scales is {text!r}; sizes look like 1.5, 2, 2.5, 3.5, 4.5, each from 0.5 to 20.")
    return scales
