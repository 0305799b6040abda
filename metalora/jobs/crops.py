"""See what stage 2 would learn from: the crops of a photo, and where they lie on it."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ..config import CropConfig, Phase, Step, UserError
from ..measure import load_faces
from ..measure.faces import numbered
from ..method.crops import Box
from ..store import files
from ..store.images import read_photo, resize_crop
from ..store.pictures import draw_boxes, save_image, table
from . import Job
from .photos import PlannedPhoto, plan_photo, said_of_turns


@dataclass(frozen=True)
class CropSheet:
    """What was written, and what was planned."""

    sheet: Path
    planned: PlannedPhoto


def write_crops(
    photo: Path, out: Path, config: CropConfig, *, embedder: str = "sface", multiple: int = 16
) -> Job[CropSheet]:
    """Write every crop as it will be trained on, and `sheet.png`, a page with all of them.

    Where the face cannot be chosen, `faces.png` shows the photo with every face boxed and numbered.
    """
    files.check_writable(out / "sheet.png")
    yield Phase("looking for the face")
    analyser = load_faces(embedder)
    try:
        planned = plan_photo(photo, config, analyser, multiple)
    except UserError as error:
        pixels = read_photo(photo)
        found = numbered(analyser.find(pixels))
        if len(found) < 2:
            raise
        boxes = [face.box for face in found]
        save_image(
            draw_boxes(pixels, boxes, [str(number) for number in range(1, len(boxes) + 1)]), out / "faces.png", {}
        )
        raise UserError(f"{error} {out / 'faces.png'} shows them with their numbers.") from error
    if turned := said_of_turns([planned], [photo.name]):
        yield Phase(turned)
    for index, crop in enumerate(planned.crops, 1):
        save_image(planned.image(crop), out / f"crop-{index:02d}-{crop.size[0]}x{crop.size[1]}.png")
        yield Step(index, len(planned.crops))
    save_image(crop_sheet(planned), out / "sheet.png")
    return CropSheet(out / "sheet.png", planned)


def crop_sheet(planned: PlannedPhoto) -> Tensor:
    """The photo with the chosen face, then every crop, a row a ratio, and what becomes of its pixels."""
    assert planned.face is not None
    overview = draw_boxes(planned.photo, [planned.face.box], ["face"])
    scale = max(max(crop.size) for crop in planned.crops) / max(overview.shape)
    height, width = (round(side * scale) for side in overview.shape[1:])
    overview = resize_crop(overview, Box(0, 0, overview.shape[2], overview.shape[1]), width, height)
    rows: dict[tuple[int, int], list[tuple[Tensor, str]]] = {}
    for crop in planned.crops:
        label = f"{crop.box.width:g}x{crop.box.height:g} -> {crop.size[0]}x{crop.size[1]}"
        rows.setdefault(crop.size, []).append((planned.image(crop), label))
    return table([[(overview, "the photo")], *rows.values()])
