"""A base from the single files that ComfyUI users have: a transformer, an autoencoder and text encoders.

They hold weights alone, of one part or of several, each with a prefix of its own (ComfyUI's all-in-one checkpoints).
Settings and tokenizers come from the base that is named, a few MB of its folder on the hub, or are known. Other
programs' names for layers are turned into diffusers' by diffusers' own converters, those of its `from_single_file`;
that function itself leaves out what it does not know with a line in a log, and leaves what is missing unset. Here every
weight must be there and fit.
"""

import re
from collections.abc import Iterable, Mapping, Set
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Size, Tensor

from ..config import UserError
from .bases import ON_HUB, snapshot
from .pipeline_folder import PipelineFolder, header_of

ORIGIN = {  # flag -> its folder in ComfyUI
    "transformer": "models/diffusion_models",
    "vae": "models/vae",
    "clip_l": "models/text_encoders",
    "t5xxl": "models/text_encoders",
    "text_encoder": "models/text_encoders",
}
SCALES = (".scale_weight", ".weight_scale")  # ComfyUI's scaled fp8, of 2025 and later: weight = scale * what is stored
NO_WEIGHTS = (*SCALES, ".scale_input", ".input_scale", ".comfy_quant")
MARK = "scaled_fp8"  # a tensor that only says that there are scales
NUMBERS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
PREFIXES = {
    "transformer": re.compile(r"(model\.)?diffusion_model\.|transformer\."),
    "vae": re.compile(r"vae\.|first_stage_model\."),
    "clip_l": re.compile(r"text_encoders\.clip_l\.transformer\."),
    "t5xxl": re.compile(r"text_encoders\.t5xxl\.transformer\."),
    "text_encoder": re.compile(r"text_encoders\.\w+\.transformer\."),
}
SAME_LAYERS = {"AutoencoderKLFlux2": "AutoencoderKL", "AutoencoderKLQwenImage": "AutoencoderKLWan"}
BATCH_NORM = "bn."  # what FLUX.2's autoencoder has beside AutoencoderKL's layers, under the same name everywhere
COUNTER = "num_batches_tracked"
UNASKED = (  # of text encoders: what no prompt reaches
    *("lm_head.", "visual.", "model.visual.", "decoder.", "encoder.embed_tokens.", "logit_scale", "text_projection."),
)
TOKENIZERS = {  # component -> (public on the hub, where in a ComfyUI folder)
    "tokenizer": ("openai/clip-vit-large-patch14", "comfy/sd1_tokenizer"),
    "tokenizer_2": ("google/t5-v1_1-xxl", "comfy/text_encoders/t5_tokenizer"),
}
VOCABULARIES = ["tokenizer*", "special_tokens_map.json", "vocab.json", "merges.txt", "spiece.model"]
HELP = (
    "The tokenizers are in none of the single files. Give a folder with --tokenizers: the pipeline's, which has them "
    "as tokenizer and tokenizer_2, or for FLUX.1 your ComfyUI folder, which has both."
)


class SingleFiles(PipelineFolder):
    """`pipeline.Parts` of a base, some or all of whose weights are single files; the others are its own."""

    def __init__(self, name: str | Path, files: Mapping[str, Path]):
        super().__init__(name)
        self.tokenizers = files.get("tokenizers")
        self.files = {flag: path for flag, path in files.items() if flag != "tokenizers"}
        absent = [
            f"{path} does not exist: {flags([flag])} is a file that lies in ComfyUI's {ORIGIN[flag]}."
            for flag, path in self.files.items()
            if not path.is_file()
        ]
        if absent:  # said before anything is fetched
            raise UserError(" ".join(absent))

    @cached_property
    def index(self) -> dict[str, Any]:
        """Known for FLUX.1, which the hub gives to nobody without a login."""
        return self._known["model_index.json"] if self._known else super().index

    @cached_property
    def _known(self) -> dict[str, Any]:
        return self.family.known(self.transformer_config) if self.name in ON_HUB else {}

    @cached_property
    def _single(self) -> dict[str, str]:
        """component -> the flag that names its file."""
        known = {"transformer": "transformer", "vae": "vae", **self.family.encoder_files}
        if strange := [flag for flag in self.files if flag not in known]:
            raise UserError(
                f"{flags(strange)}: {self.family.name} has no such part; its files are {flags(known)}. "
                "Name another base with --backbone."
            )
        return {known[flag]: flag for flag in self.files}

    def _config(self, component: str, name: str) -> dict[str, Any]:
        return self._known.get(f"{component}/{name}") or super()._config(component, name)

    def _place(self, name: str) -> Path:
        if not name.startswith("tokenizer") or not (self.tokenizers or self._known):
            return super()._place(name)
        if self.tokenizers is None:
            return snapshot(TOKENIZERS[name][0], VOCABULARIES, HELP)
        places = [self.tokenizers / name]
        if self.family.name == "flux.1":
            places.append(self.tokenizers / TOKENIZERS[name][1])
        for place in places:
            if place.is_dir():
                return place
        found = "has no tokenizers" if self.tokenizers.is_dir() else "is no folder"
        raise UserError(f"{self.tokenizers} {found}. {HELP}")

    def _weights(self, name: str) -> list[Path]:
        return [self.files[self._single[name]]] if name in self._single else super()._weights(name)

    def _files(self, name: str) -> list[Path]:
        return self._weights(name) if name in self._single else super()._files(name)

    def _bytes(self, name: str) -> int:
        if name not in self._single:
            return super()._bytes(name)
        flag = self._single[name]
        return sum(size for *_, size in part_of(self.files[flag], flag).values())

    def _fetch(self, names: list[str]) -> None:
        own = [name for name in names if name not in self._single]
        if self._known:  # its tokenizers are elsewhere
            own = [name for name in own if not name.startswith("tokenizer")]
        if own:
            super()._fetch(own)

    def _absent(self, name: str) -> list[str]:
        return [] if name in self._single else super()._absent(name)

    def _load(self, name: str, device: torch.device | str, dtype: torch.dtype) -> Any:
        if name.startswith("tokenizer") and (self.tokenizers or self._known):
            return read_tokenizer(self._class(name), self._place(name))
        if name not in self._single:
            return super()._load(name, device, dtype)
        flag = self._single[name]
        kind, config, path = self._class(name), self._config(name, "config.json"), self.files[flag]
        weights = read_weights(path, flag, dtype, device)
        if flag in ("transformer", "vae"):
            return filled(kind, config, weights, path)
        return text_encoder(kind, config, weights, path, dtype).to(device)


def flags(names: Iterable[str]) -> str:
    """As they are typed."""
    return ", ".join("--" + name.replace("_", "-") for name in names)


def read_tokenizer(kind: Any, folder: Path) -> Any:
    """A UserError where a package or a file is missing."""
    try:
        return kind.from_pretrained(folder)
    except ImportError as error:
        raise UserError(f"{folder} needs one more package: pip install sentencepiece protobuf ({error}).") from error
    except (OSError, ValueError) as error:
        raise UserError(f"The tokenizer in {folder} cannot be read: {str(error).splitlines()[0]}") from error


def part_of(path: Path, part: str) -> dict[str, tuple[str, str, int]]:
    """A part's tensors by their names without its prefix, where any has it; else all.

    Of each its name in the file, its kind and its size in bytes.
    """
    header = header_of(path)
    found = {key[match.end() :]: (key, *of) for key, of in header.items() if (match := PREFIXES[part].match(key))}
    return found or {key: (key, *of) for key, of in header.items()}


def read_weights(path: Path, part: str, dtype: torch.dtype, device: torch.device | str) -> dict[str, Tensor]:
    """A part's weights, one by one to the device: scaled ones are multiplied in float32 before they are rounded.

    A UserError for what is damaged, or kept in numbers that only ComfyUI reads.
    """
    entries = part_of(path, part)
    found = {}
    try:
        with safe_open(path, framework="pt") as file:
            for name, (key, kind, _) in entries.items():
                if name.endswith(NO_WEIGHTS) or name == MARK:
                    continue
                if kind not in NUMBERS:
                    if name.endswith((".weight", ".bias")):
                        raise UserError(_packed(path, name, kind))
                    continue  # positions, or a tokenizer
                tensor = file.get_tensor(key)
                scales = [name.removesuffix(".weight") + ending for ending in SCALES if name.endswith(".weight")]
                if there := [entries[one][0] for one in scales if one in entries]:
                    scale = file.get_tensor(there[0])
                    if scale.numel() not in (1, len(tensor)):
                        raise UserError(_packed(path, name, f"one scale for each block of {kind} numbers"))
                    tensor = tensor.float() * scale.float().reshape(-1, *[1] * (tensor.ndim - 1))
                found[name] = tensor.to(device, dtype, copy=True)  # a copy: safetensors returns a view of the file
    except SafetensorError as error:
        raise UserError(f"{path} is not a readable safetensors file ({error}). Copy it again.") from error
    return found


def _packed(path: Path, name: str, kind: str) -> str:
    return (
        f"{path} keeps {name} as {kind}, which only ComfyUI reads. Use the bf16 or fp8 file of this model; --eight-bit "
        "and --four-bit make it as small in memory."
    )


def filled(kind: Any, config: Mapping[str, Any], weights: dict[str, Tensor], path: Path) -> Any:
    """A model of diffusers' that has these weights, without a copy of them."""
    from accelerate import init_empty_weights

    with init_empty_weights():
        model = kind.from_config(dict(config))
    expected = {name: tensor for name, tensor in model.state_dict().items() if not name.endswith(COUNTER)}
    if not expected.keys() <= weights.keys():
        weights = converted(kind, config, weights, path)
    wrong = [
        f"{name} is {list(weights[name].shape)}, not {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    refuse_misfit(path, kind, expected.keys() - weights.keys(), weights.keys() - expected.keys(), wrong)
    model.load_state_dict(weights, strict=False, assign=True)  # the counter of a batch norm is no weight
    return model.eval()


def converted(kind: Any, config: Mapping[str, Any], weights: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Under the names of diffusers' class."""
    from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES

    known: Any = SINGLE_FILE_LOADABLE_CLASSES
    name = kind.__name__
    kept = {key: weight for key, weight in weights.items() if key.startswith(BATCH_NORM)}
    try:
        convert = known[SAME_LAYERS.get(name, name)]["checkpoint_mapping_fn"]
    except KeyError as error:
        raise UserError(f"{path}: this diffusers reads no single files of a {name}; a newer one may.") from error
    try:
        return convert(checkpoint=weights, config=config) | kept
    except (KeyError, IndexError, ValueError, RuntimeError) as error:  # it looks for what must be there, or splits it
        raise UserError(
            f"{path} does not fit: it is no {name} ({type(error).__name__}: {str(error).splitlines()[0][:80]}). "
            "It is of another model, or was cut by a tool."
        ) from error


def text_encoder(
    kind: Any, config: Mapping[str, Any], weights: dict[str, Tensor], path: Path, dtype: torch.dtype
) -> Any:
    """One of transformers' classes, which knows its names of other years; what no prompt reaches may be missing."""
    from transformers.utils import logging

    settings, level = kind.config_class.from_dict(dict(config)), logging.get_verbosity()
    logging.set_verbosity_error()  # what does not fit is told below
    try:
        model, found = kind.from_pretrained(
            None,
            config=settings,
            state_dict=weights,
            torch_dtype=dtype,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    finally:
        logging.set_verbosity(level)
    missing, strange = (
        {name for name in found[keys] if not name.startswith(UNASKED)} for keys in ("missing_keys", "unexpected_keys")
    )
    sizes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    wrong = [misshapen(key, weights, sizes) for key in sorted(found["mismatched_keys"])]
    refuse_misfit(path, kind, missing, strange, wrong)
    return model.eval()


def misshapen(key: str | tuple[str, Size, Size], weights: Mapping[str, Tensor], sizes: Mapping[str, Size]) -> str:
    """A weight of another shape in words; transformers 4.57 gives its name alone."""
    if isinstance(key, str):
        dotted = f".{key}"
        named = [name for name in weights if dotted.endswith(f".{name}") or f".{name}".endswith(dotted)]
        if not named:
            return f"{key} is of another shape than {list(sizes[key])}"
        key = (key, weights[max(named, key=len)].shape, sizes[key])
    return f"{key[0]} is {list(key[1])}, not {list(key[2])}"


def refuse_misfit(path: Path, kind: Any, missing: Set[str], strange: Set[str], wrong: list[str]) -> None:
    """One UserError tells of all weights that are missing, strange or of another shape."""
    found = ((sorted(missing), "are missing"), (sorted(strange), "are not known"), (wrong, "have another shape"))
    problems = [f"{len(names)} weights {what} ({', '.join(names[:3])})" for names, what in found if names]
    if problems:
        raise UserError(
            f"{path} does not fit this base's {kind.__name__}: {'; '.join(problems)}. It is of another model or of "
            "another size (--backbone), or was cut by a tool."
        )


def flux_of(files: Mapping[str, Path]) -> str:
    """Which base is meant by single files where none is named: FLUX.1, dev or schnell by its transformer."""
    path = files.get("transformer")
    dev = path is None or not path.is_file() or any("guidance" in key for key in header_of(path))
    return "flux-dev" if dev else "flux-schnell"
