"""FaceNet's weights: one public file, fetched once and checked, or a file that the user names."""

import hashlib
import http.client
import io
import os
import pickle
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..config import UserError

FILE = "20180402-114759-vggface2.pt"
URL = f"https://github.com/timesler/facenet-pytorch/releases/download/v2.2.9/{FILE}"
# Of the release file, as a dozen projects that pin it agree; and its size.
SHA256 = "281cebca8662831adb987a874bdcb36e73f5b1c6dc5ee5878f305e985625d99b"
BYTES = 111_898_327
CLASSIFIER = {"logits.weight", "logits.bias"}  # of VGGFace2's 8631 people; an embedding does without
TIMEOUT = 60  # seconds without a byte

Opener = Callable[[str], Any]


class Weights(NamedTuple):
    """A file's tensors, and which file it was."""

    tensors: dict[str, Tensor]
    sha256: str
    is_vggface2: bool  # exactly the public file


def read_weights(path: Path | None = None) -> Weights:
    """The tensors of the file, or of the public one. Only tensors are unpickled, never code."""
    path = path or fetched()
    data = _bytes_of(path)
    sha256 = hashlib.sha256(data).hexdigest()
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise UserError(
            f"{path} is not a file of PyTorch weights ({type(error).__name__}). FaceNet needs {FILE} from {URL}."
        ) from error
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise UserError(f"{path} holds a {type(state).__name__}, not weights by name. FaceNet needs {FILE} from {URL}.")
    tensors = {name: tensor for name, tensor in state.items() if name not in CLASSIFIER}
    return Weights(tensors, sha256, sha256 == SHA256)


def default_path() -> Path:
    """Where facenet-pytorch keeps the file too, so that whoever has it does not fetch it again."""
    return Path(torch.hub.get_dir()).parent / "checkpoints" / FILE


def fetched(path: Path | None = None, opened: Opener | None = None) -> Path:
    """The public file, fetched if it is not there; never one with other bytes."""
    path = path or default_path()
    if not path.exists():
        _fetch(path, opened or _open)
    found = hashlib.sha256(_bytes_of(path)).hexdigest()
    if found != SHA256:
        raise UserError(
            f"{path} is not the public FaceNet file: its sha256 is {found[:16]}..., {SHA256[:16]}... is needed. "
            f"Delete it, and it is fetched again; for other weights say --faces facenet:FILE."
        )
    return path


def _fetch(path: Path, opened: Opener) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    digest, size = hashlib.sha256(), 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with opened(URL) as answer, partial.open("wb") as file:
            while size <= BYTES and (block := answer.read(2**20)):
                file.write(block)
                digest.update(block)
                size += len(block)
        if digest.hexdigest() != SHA256:
            raise UserError(
                f"What {URL} sent is not the public FaceNet file: {size} bytes, sha256 {digest.hexdigest()[:16]}... "
                f"instead of {BYTES} bytes, {SHA256[:16]}... Nothing was kept. {_by_hand(path)}"
            )
        partial.replace(path)
    except (OSError, http.client.HTTPException) as error:  # a URLError is an OSError
        raise UserError(f"FaceNet's weights could not be fetched from {URL} ({error}). {_by_hand(path)}") from error
    finally:
        partial.unlink(missing_ok=True)


def _open(url: str) -> Any:
    return urllib.request.urlopen(url, timeout=TIMEOUT)


def _by_hand(path: Path) -> str:
    return (
        f"Fetch it elsewhere (107 MB) and put it at {path}, or say --faces facenet:FILE. "
        "--faces sface needs no download."
    )


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"FaceNet's weights {path} cannot be read ({error.strerror}).") from error
