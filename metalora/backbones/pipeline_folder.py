"""A base model from a diffusers pipeline folder, or from the Hugging Face hub's cache of one."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from importlib import import_module
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ..config import UserError
from .architecture import Architecture
from .bases import ON_HUB, snapshot
from .families import FAMILIES
from .families.flux import SCHEDULER_DEFAULTS
from .family import Family

SETTINGS = ["model_index.json", "*/*.json", "tokenizer*/*"]  # a few MB: all but the weights
WHOLE = 256 * 2**20  # files up to this are read whole
SAMPLES, SAMPLE = 64, 2**16
PARTS = ("text_encoders", "autoencoder", "transformer")
TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "spiece.model", "tekken.json")


class PipelineFolder:
    """`pipeline.Parts` from a local folder, or from a hub name such as "Tongyi-MAI/Z-Image"."""

    def __init__(self, name: str | Path):
        self.name = str(name)

    @cached_property
    def folder(self) -> Path:
        """Where the pipeline lies. Of a hub name, the settings are fetched when first asked for, weights when used."""
        folder = Path(self.name).expanduser()
        if not self._on_hub:
            if not (folder / "model_index.json").is_file():
                raise UserError(
                    f"{folder} is not a diffusers pipeline: it has no model_index.json. Give the folder that holds "
                    "model_index.json beside transformer, vae, text_encoder, tokenizer and scheduler."
                )
            return folder
        if folder.is_absolute() or self.name.count("/") != 1 or self.name.startswith((".", "~")):
            raise UserError(f"{self.name} is neither a folder nor a hub name such as Tongyi-MAI/Z-Image.")
        return snapshot(self.name, SETTINGS)

    @property
    def _on_hub(self) -> bool:
        return not Path(self.name).expanduser().is_dir()

    @cached_property
    def index(self) -> dict[str, Any]:
        """model_index.json: the pipeline's class, and each component's library and class."""
        return read_json(self.folder / "model_index.json")

    @cached_property
    def family(self) -> Family:
        """By the pipeline's class."""
        found = ON_HUB[self.name].pipeline if self.name in ON_HUB else self.index.get("_class_name")
        for family in FAMILIES:
            if family.pipeline == found:
                return family
        known = ", ".join(f"{family.name} ({family.pipeline})" for family in FAMILIES)
        raise UserError(f"{self.name} is a {found}, which is not supported. Supported are: {known}.")

    @property
    def settings(self) -> Mapping[str, Any]:
        """What model_index.json says beside the components."""
        return {key: value for key, value in self.index.items() if not key.startswith("_") and not _is_component(value)}

    @property
    def _components(self) -> dict[str, tuple[str, str]]:
        """name -> (library, class), of those that there are."""
        return {key: tuple(value) for key, value in self.index.items() if _is_component(value) and value[0]}

    def _names(self, part: str) -> list[str]:
        """A part's components."""
        own = {"autoencoder": ("vae",), "transformer": ("transformer",)}.get(part, ("text_encoder", "tokenizer"))
        return [name for name in sorted(self._components) if name.startswith(own)]

    @cached_property
    def transformer_config(self) -> Mapping[str, Any]:
        """From its folder; of a base that has a name, known without."""
        if self.name in ON_HUB:
            return ON_HUB[self.name].config
        return self._config("transformer", "config.json")

    @cached_property
    def scheduler_config(self) -> Mapping[str, Any]:
        """From the scheduler's folder; what it leaves out, as diffusers fills it in."""
        return {**SCHEDULER_DEFAULTS, **self._config("scheduler", "scheduler_config.json")}

    @property
    def architecture(self) -> Architecture:
        """From the transformer's settings."""
        return self.family.architecture(self.transformer_config)

    @cached_property
    def max_tokens(self) -> int:
        """As the family counts, by the settings of transformer and tokenizer."""
        known = self.name in ON_HUB
        settings = {} if known else self._config(self._long_tokenizer, "tokenizer_config.json")
        return self.family.longest(self.transformer_config, settings)

    @property
    def _long_tokenizer(self) -> str:
        """The last: where there are several, it is the one for long prompts."""
        return [name for name in self._names("text_encoders") if name.startswith("tokenizer")][-1]

    def tokenizer(self) -> Any:
        """The one for long prompts."""
        self._check("text_encoders")
        return self._load(self._long_tokenizer, "cpu", torch.float32)

    def text_encoders(self, device: torch.device | str, dtype: torch.dtype) -> dict[str, Any]:
        """Each by its own class, as the pipeline loads it."""
        self._check("text_encoders")
        return {name: self._load(name, device, dtype) for name in self._names("text_encoders")}

    def autoencoder(self, device: torch.device | str, dtype: torch.dtype) -> Any:
        """As the pipeline loads it."""
        self._check("autoencoder")
        return self._load("vae", device, dtype)

    def transformer(self, device: torch.device | str, dtype: torch.dtype) -> Any:
        """As the pipeline loads it."""
        self._check("transformer")
        return self._load("transformer", device, dtype)

    def _config(self, component: str, name: str) -> dict[str, Any]:
        return read_json(self.folder / component / name)

    def _class(self, name: str) -> Any:
        library, class_name = self._components[name]
        kind = getattr(import_module(library), class_name, None) if library in ("diffusers", "transformers") else None
        if kind is None:
            raise UserError(
                f"{self.name} needs {class_name} of {library}, which the installed version does not have: "
                f"pip install --upgrade {library}."
            )
        # Before transformers 5 the quick tokenizer, which knows where in a text a token ends, has a name of its own.
        return getattr(import_module(library), f"{class_name}Fast", kind) if name.startswith("tokenizer") else kind

    def _load(self, name: str, device: torch.device | str, dtype: torch.dtype) -> Any:
        kind, place = self._class(name), self._place(name)
        if name.startswith("tokenizer"):
            return kind.from_pretrained(place)
        if kind.__name__ == "CLIPTextModel":  # transformers 5 writes CLIP's keys in a way that 4 does not read
            model, found = kind.from_pretrained(place, torch_dtype=dtype, output_loading_info=True)
            if found["missing_keys"]:
                raise UserError(
                    f"{place} holds a CLIP that this transformers cannot read: use transformers 5 or newer."
                )
            return model.to(device)
        return kind.from_pretrained(place, torch_dtype=dtype).to(device)

    def _place(self, name: str) -> Path:
        """The folder of a component."""
        return self.folder / name

    def _weights(self, name: str) -> list[Path]:
        """The weight files of a component."""
        return sorted(self._place(name).glob("*.safetensors"))

    def _files(self, name: str) -> list[Path]:
        """All that a component's outputs depend on."""
        return [file for file in sorted(self._place(name).iterdir()) if file.is_file()]

    def _bytes(self, name: str) -> int:
        return sum(size for file in self._weights(name) for _, size in header_of(file).values())

    def fingerprint(self, part: str) -> str:
        """Of every settings, vocabulary and weight file of the part."""
        self._check(part)
        return fingerprint_of_files(file for name in self._names(part) for file in self._files(name))

    def weights_bytes(self) -> dict[str, int]:
        """From the headers of the weight files."""
        return {
            part: sum(self._bytes(name) for name in self._names(part) if not name.startswith("tokenizer"))
            for part in PARTS
        }

    def missing(self) -> list[str]:
        """What a complete pipeline would have."""
        try:
            return [sentence for part in PARTS for name in self._names(part) for sentence in self._absent(name)]
        except UserError as error:  # there is no folder at all
            return [str(error)]

    def _check(self, part: str) -> None:
        """Fetch what is on the hub alone; a UserError for what is nowhere, or not whole."""
        self._fetch(self._names(part))
        absent = [sentence for name in self._names(part) for sentence in self._absent(name)]
        if absent:
            raise UserError(" ".join(absent))
        for name in self._names(part):
            for file in self._weights(name) if not name.startswith("tokenizer") else []:
                header_of(file)  # refuses one that is not whole

    def _fetch(self, names: list[str]) -> None:
        if self._on_hub:
            snapshot(self.name, [*SETTINGS, *(f"{name}/*.safetensors" for name in names)])

    def _absent(self, name: str) -> list[str]:
        """The files of one component that should be there and are not."""
        folder = self._place(name)
        if name.startswith("tokenizer"):
            there = any((folder / file).is_file() for file in TOKENIZER_FILES)
            return [] if there else [f"{folder} has none of {', '.join(TOKENIZER_FILES)}: {self._copy(name)}"]
        wanted = [folder / "config.json"]
        for index in folder.glob("*.safetensors.index.json"):
            wanted += [folder / shard for shard in sorted(set(read_json(index)["weight_map"].values()))]
        sentences = [f"{path} is missing: {self._copy(name)}" for path in wanted if not path.is_file()]
        if not any(folder.glob("*.safetensors")):
            sentences.append(f"{folder} has no .safetensors file: {self._copy(name)}")
        return sentences

    def _copy(self, name: str) -> str:
        return "the first run fetches it." if self._on_hub else f"copy the pipeline's {name} folder there."


def header_of(path: Path) -> dict[str, tuple[str, int]]:
    """Every tensor's kind ("BF16") and size in bytes, without reading one; a UserError where the file is not whole."""
    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  # not a dict
            sizes = {name: (one.get_dtype(), prod(one.get_shape())) for name, one in slices.items()}
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist.") from error
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is not a safetensors file, or not a whole one ({error}): copy it again.") from error
    # A number's bits stand in its kind's name, but for BOOL, a byte.
    bits = {kind: int((re.findall("[0-9]+", kind) or ["8"])[0]) for kind, _ in sizes.values()}
    return {name: (kind, numbers * bits[kind] // 8) for name, (kind, numbers) in sizes.items()}


def fingerprint_of_files(paths: Iterable[Path]) -> str:
    """sha256 over the files' names and fingerprints, in the given order; the folder does not matter."""
    sha = hashlib.sha256()
    for path in paths:
        sha.update(f"{path.name}\0{fingerprint_of_file(path)}\0".encode())
    return sha.hexdigest()


def fingerprint_of_file(path: Path) -> str:
    """sha256 of the content; of a larger file: of its size, its header, and 64 samples of 64 KiB at even distances.

    Other names, shapes or types of tensors are in the safetensors header, so they show for certain. A
    change of single weights between two samples goes unseen; a trained or converted model changes everywhere.
    """
    size = path.stat().st_size
    sha = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        if size <= WHOLE:
            while block := file.read(2**20):
                sha.update(block)
        else:
            length = int.from_bytes(file.read(8), "little")
            sha.update(file.read(min(length, 2**24)))  # a safetensors header; of another file just its start
            for index in range(SAMPLES):
                file.seek((size - SAMPLE) * index // (SAMPLES - 1))
                sha.update(file.read(SAMPLE))
    return sha.hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; a UserError where there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: copy the pipeline's {path.parent.name} folder again.") from error
    except ValueError as error:
        raise UserError(f"{path} is not readable JSON ({error}): copy it again.") from error


def _is_component(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(part is None or isinstance(part, str) for part in value)


MINIATURE = Path(__file__).parents[1] / "data" / "miniature"  # by place: inside ComfyUI the package has another name


class Miniature(PipelineFolder):
    """A small, real FLUX of rendered people that ships, so that nothing is downloaded.

    Its weights are stored in 16 bits and computed with in 32.
    """

    def __init__(self) -> None:
        if not (MINIATURE / "model_index.json").is_file():
            raise UserError(
                f"The miniature's weights are not in {MINIATURE}: the package is incomplete. Install it again."
            )
        super().__init__(MINIATURE)
