"""The project's files: safetensors with metadata that says what a file is, written whole or not at all.

| kind | tensors | made by |
|---|---|---|
| meta-down | <site>.down; other tensors are ignored | stage 1, import, from-loras |
| adapter | <site>.down, .mid, .up (a plain LoRA has no mid) | personalize |
| lora | an ordinary LoRA in a key format that stock loaders read | personalize, merge |
| state | an adapter and its optimizer, in the middle of a run | personalize, when stopped |
| checkpoint | Meta-Down, the present bucket's heads by identity, their optimizers | meta-train, every so often |

No file holds a photo or a path of the machine it was made on; inputs are named by their hashes.
"""

import hashlib
import json
import os
import platform
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..config import UserError

KINDS = {
    "meta-down": "a Meta-Down file",
    "adapter": "an adapter file",
    "lora": "a finished LoRA file",
    "state": "the saved state of a stopped run",
    "checkpoint": "a checkpoint of meta-train",
}
RESUMED = ("state", "checkpoint")  # kinds that a run goes on from
PREFIX = "metalora."
PARTIAL = re.compile(r"\.(?:([0-9a-f]{6})-)?([0-9]{1,9})\.partial$")
OLDER_NAMES = {"knobs": "options", "spelling": "key_format"}  # of metadata in files of earlier versions


def write(path: Path, tensors: dict[str, Tensor], kind: str, metadata: dict[str, str]) -> None:
    """Write one of our files. The same tensors and metadata give the same bytes."""
    assert kind in KINDS, kind
    broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise UserError(f"{path} was not written: {len(broken)} tensors hold NaN or infinity, {broken[0]} among them.")
    if kind in RESUMED:
        metadata = {**metadata, "sha256": digest_of_file(tensors, metadata)}
    named = {key if key.startswith("modelspec.") else PREFIX + key: value for key, value in metadata.items()}
    write_bytes(path, safetensors_bytes(tensors, {**named, "format": "pt", PREFIX + "kind": kind}))


def safetensors_bytes(tensors: dict[str, Tensor], metadata: dict[str, str]) -> bytes:
    """A safetensors file with its header in a fixed order; the library writes metadata in an order that varies."""
    contiguous = {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
    data = save(contiguous, metadata)
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    ordered = {"__metadata__": dict(sorted(header.pop("__metadata__").items())), **header}
    text = json.dumps(ordered, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the tensors that follow stay aligned
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def read(path: Path, kinds: tuple[str, ...], base: str | None = None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors, metadata) of one of our files; a UserError if it is of another kind or was made for another base."""
    with opened(path) as file:
        metadata = own_metadata(file.metadata())
        kind = metadata.get("kind", "unknown")
        if kind not in kinds:
            raise UserError(
                f"{path} is {KINDS.get(kind, 'not a file of this project')}, but "
                f"{' or '.join(KINDS[wanted] for wanted in kinds)} is needed here. "
                "`metalora info FILE` shows what a file is."
            )
        check_base(path, metadata, base)
        tensors = all_tensors(file)
    if kind in RESUMED and metadata.pop("sha256", None) != digest_of_file(tensors, metadata):
        raise UserError(
            f"{path} is damaged, or of an earlier version. Delete it: the run then goes on from what was saved before "
            "it, or starts anew."
        )
    return tensors, metadata


def all_tensors(file: safe_open) -> dict[str, Tensor]:
    """By name."""
    return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict


def check_base(path: Path, metadata: dict[str, str], base: str | None) -> None:
    """Refuse a file that says it was made for another base."""
    if base is not None and metadata.get("base", base) != base:
        raise UserError(
            f"{path} was made for {metadata['base']!r}, but the loaded model is {base!r}. "
            f"Pick a file for {base!r}, or the matching --backbone."
        )


def of_other_weights(path: Path, metadata: dict[str, str], fingerprint: str) -> list[str]:
    """A sentence where the file says that it was trained on other weight files of its base.

    `fingerprint` is the transformer's. ComfyUI's models have no files and are named otherwise: nothing is said of them.
    """
    theirs, ours = (one.rpartition("-")[0] for one in (metadata.get("base_fingerprint", ""), fingerprint))
    if not theirs or not ours or theirs == ours:
        return []
    base = metadata.get("base", "its base")
    return [f"{path.name} was trained on other weights of {base} than these: it may fit them less well"]


@contextmanager
def opened(path: Path) -> Iterator[safe_open]:
    """A safetensors file open for reading; everything that can be wrong with it is a UserError."""
    try:
        if not path.is_file():
            raise UserError(
                f"{path} {'is a folder' if path.is_dir() else 'does not exist'}; a .safetensors file is needed."
            )
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise UserError(
            f"{path} is not a readable safetensors file ({error}). It may be cut short: copy it again."
        ) from error
    except (OSError, ValueError) as error:  # ValueError: a zero in the name
        raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error


def own_metadata(metadata: dict[str, str] | None) -> dict[str, str]:
    """What we wrote into the metadata, without our prefix; empty for a file that is not ours."""
    own = {key.removeprefix(PREFIX): value for key, value in (metadata or {}).items() if key.startswith(PREFIX)}
    return {OLDER_NAMES.get(key, key): value for key, value in own.items()}


def write_bytes(path: Path, data: bytes, *, private: bool = False, flag: str = "--out") -> None:
    """All of the data or no file: written beside the target, then moved over it.

    What dead processes have left unfinished in the same folder goes. `private` files are for this user alone; `flag`
    is how the user chooses another place.
    """
    partial, rights = partial_of(path), 0o600 if private else 0o666
    with mended_os_errors(path, flag):
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent)
        try:
            with open(partial, "wb", opener=lambda name, flags: os.open(name, flags, rights)) as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def partial_of(path: Path) -> Path:
    """What a file is called while this process writes it; the name says which machine and process that is."""
    return path.with_name(f"{path.name[:50]}.{_machine()}-{os.getpid()}.partial")


def sweep(folder: Path, *, deep: bool = False) -> None:
    """Remove what processes that no longer run have left unfinished in a folder; `deep`: in all below it, too."""
    for path in folder.rglob("*.partial") if deep else folder.glob("*.partial"):
        if (found := PARTIAL.search(path.name)) and not is_alive(path, *found.groups()):
            with suppress(OSError):  # another process was faster, or it is not ours
                path.unlink()


def is_alive(path: Path, machine: str | None, process: str) -> bool:
    """Whether the process that a partial file's name names still runs; on another machine, whether it is a day old."""
    import psutil  # imported late: most files are written where there is nothing to ask

    try:
        written = path.stat().st_mtime
        if machine not in (None, _machine()):
            return time.time() - written < 24 * 3600
        return psutil.Process(int(process)).create_time() < written + 60  # a younger one has got the number again
    except psutil.AccessDenied:
        return True
    except (FileNotFoundError, psutil.NoSuchProcess):
        return False


@cache
def _machine() -> str:
    return digest(platform.node().encode())[:6]


def write_json(path: Path, record: Any) -> None:
    """A dataclass as JSON, for programs and people; a letter that is no UTF-8, as of a file's name, as its number."""
    text = json.dumps(asdict(record), indent=2, ensure_ascii=False) + "\n"
    write_bytes(path, text.encode(errors="backslashreplace"))


def check_writable(path: Path) -> None:
    """Find out before hours of work, not after them, that a result could not be saved; nothing is left behind."""
    with mended_os_errors(path):
        probe = partial_of(next(folder for folder in path.absolute().parents if folder.exists()) / path.name)
        try:
            probe.write_bytes(b"probe")
        finally:
            probe.unlink(missing_ok=True)


@contextmanager
def mended_os_errors(path: Path, flag: str = "--out") -> Iterator[None]:
    """The disk's refusals as sentences."""
    try:
        yield
    except (OSError, RecursionError) as error:  # pathlib makes folders in folders one by one, 1000 at most
        raise UserError(
            f"{path} could not be written: {getattr(error, 'strerror', None) or error}. Nothing was left half-written; "
            f"free some space or choose another place with {flag}."
        ) from error


def digest(data: bytes) -> str:
    """sha256, as files name their inputs."""
    return hashlib.sha256(data).hexdigest()


def digest_of_tensors(tensors: dict[str, Tensor]) -> str:
    """sha256 over names, shapes and values."""
    sha = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        sha.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        sha.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def digest_of_file(tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    """sha256 of all that a run goes on from: one changed bit would be another run, in silence."""
    said = {key: value for key, value in metadata.items() if key != "kind"}
    return digest((json.dumps(said, sort_keys=True) + digest_of_tensors(tensors)).encode())
