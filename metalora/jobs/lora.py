"""Finished LoRA files: checked before they are written, and read again in any key format."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from math import isfinite
from pathlib import Path

from torch import Tensor

from ..backbones.architecture import Architecture, FluxShape, ListedArchitecture
from ..backbones.lora_foreign import notices
from ..backbones.lora_formats import LoRA, check_lora, format_lora
from ..backbones.lora_products import CONFIG_FILE, declared_in
from ..backbones.lora_reading import read_lora
from ..backbones.protocol import Backbone
from ..config import PersonalizeConfig, UserError
from ..method.adapter import Adapter, Adapters, Site, fold_all
from ..store import files
from . import Job

PEFT_FILE = "adapter_model.safetensors"
ROLES = ("down", "mid", "up")  # in the order of the products
LARGEST_SIZE = 100_000  # of any number of an architecture
MOST_BLOCKS = 1000
PREFIXES = ("transformer.", "diffusion_model.", "lora_unet_")  # of bases that are known by their sites
LARGEST_CONFIG = 10_000_000  # bytes


def save_lora(path: Path, lora: LoRA, key_format: str, architecture: Architecture, metadata: dict[str, str]) -> None:
    """Write an ordinary LoRA: every key exists in the base, every shape fits, and every number is one of use."""
    tensors = format_lora(lora, key_format, architecture)
    check_lora(tensors, key_format, architecture)
    files.write(path, tensors, "lora", {**metadata, "key_format": key_format, **model_spec(metadata, architecture)})


@dataclass(frozen=True)
class IntermediateLoras:
    """The LoRA at steps on the way, each a file of its own: `ada-step00100.safetensors` beside `ada.safetensors`."""

    out: Path  # the finished LoRA
    key_format: str
    architecture: Architecture
    metadata: dict[str, str]

    def at(self, adapters: Adapters, config: PersonalizeConfig) -> dict[int, Callable[[], None]]:
        """What to do after which steps; after the last one the finished LoRA is written."""
        steps = range(config.lora_every, config.steps, config.lora_every) if config.lora_every else ()
        return {step: partial(self.save, adapters, config, step) for step in steps}

    def save(self, adapters: Adapters, config: PersonalizeConfig, step: int) -> None:
        """Write this step's, and remove the one that is no longer among the last `loras_kept`."""
        metadata = {**self.metadata, "step": str(step)}
        save_lora(self.path(step), fold_all(adapters), self.key_format, self.architecture, metadata)
        if config.loras_kept:
            self.path(step - config.loras_kept * config.lora_every).unlink(missing_ok=True)

    def path(self, step: int) -> Path:
        """Where a step's is."""
        return self.out.with_name(f"{self.out.stem}-step{step:05}{self.out.suffix}")

    def check_free(self, adapters: Adapters, config: PersonalizeConfig) -> None:
        """Refuse, before any work, to write over another run's."""
        for path in map(self.path, self.at(adapters, config)):
            if path.exists():
                raise UserError(f"{path} is of an earlier training. Choose another --out, or move it away.")


def load_lora(path: Path, backbone: Backbone) -> tuple[LoRA, list[str]]:
    """(an ordinary LoRA of any maker and key format, a sentence for each part of its file that was left out)."""
    with files.opened(path) as file:
        metadata = file.metadata() or {}
        own = files.own_metadata(metadata)
        if own.get("kind", "lora") != "lora":
            raise UserError(
                f"{path} is of kind {own['kind']!r}, not a finished LoRA. `metalora merge` makes one of an adapter."
            )
        files.check_base(path, own, backbone.name)
        tensors = files.all_tensors(file)
    try:
        of_peft = any(key.startswith("base_model.model.") for key in tensors)
        config = path.with_name(CONFIG_FILE) if of_peft or path.name == PEFT_FILE else None
        declared = declared_in(metadata, None if config is None else text_of(config))
        reading = read_lora(tensors, backbone.architecture, declared)
        if not tensors:
            raise UserError("it is empty")
    except UserError as error:
        raise UserError(f"{path} cannot be read as a LoRA of {backbone.name}: {error}.") from error
    said = notices(reading.left, tensors)
    if of_peft and declared is None and not any(key.endswith(".alpha") for key in tensors):
        said.append(f"no {CONFIG_FILE} lies beside it, so alpha is taken to be the rank")
    return reading.lora, [f"{path.name}: {sentence}" for sentence in said]


def text_of(config: Path) -> str | None:
    """The text of a configuration, which need not be there."""
    try:
        with config.open("rb") as file:
            return file.read(LARGEST_CONFIG).decode("utf-8-sig")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{config} cannot be read ({error}), so the LoRA's strength is unknown") from error


def lora_adapters(lora: LoRA, backbone: Backbone, strength: float) -> Adapters:
    """A LoRA as adapters that act while images are made; the base's weights stay untouched."""
    sites = [site for site in backbone.sites("all") if site.name in lora]
    return Adapters(
        sites, {site.name: Adapter(lora[site.name][0], None, lora[site.name][1], strength) for site in sites}
    )


def merge_adapter(adapter: Path, out: Path, key_format: str, overwrite: bool = False) -> Job[Path]:
    """Three matrices a site become two; the base is not needed, since the file knows its shape."""
    adapters, architecture, metadata = read_adapter(adapter)
    if out.exists() and not overwrite:
        raise UserError(f"{out} exists already. Choose another --out, or say --overwrite to replace it.")
    save_lora(out, fold_all(adapters), key_format, architecture, metadata)
    return out
    yield  # a job, though it has no steps


def read_adapter(path: Path) -> tuple[Adapters, Architecture, dict[str, str]]:
    """An adapter file, checked; its sites are known by name alone, as no base is there to say where they are."""
    tensors, metadata = files.read(path, ("adapter",))
    scale = scale_of(path, metadata)
    found = {name: adapter_of(path, name, tensors, scale) for name in names_of(path, tensors)}
    sites = [Site(name, name, one.down.shape[1], one.up.shape[0]) for name, one in found.items()]
    return Adapters(sites, found), architecture_of(path, metadata, sites), metadata


def names_of(path: Path, tensors: dict[str, Tensor]) -> list[str]:
    """The sites of an adapter file; refused unless each has its matrices."""
    names = [name.removesuffix(".up") for name in tensors if name.endswith(".up")]
    absent = [f"{name}.down" for name in names if f"{name}.down" not in tensors]
    strange = [key for key in tensors if key.rpartition(".")[2] not in ROLES or key.rpartition(".")[0] not in names]
    if not names or absent or strange:
        what = f"{absent[0]} is missing" if absent else f"{strange[0]} has no up" if strange else "it has no layers"
        raise UserError(f"{path} is damaged: {what}. Personalize again, or copy it again.")
    return names


def adapter_of(path: Path, name: str, tensors: dict[str, Tensor], scale: float) -> Adapter:
    """One site's three matrices, or two; refused unless they are matrices that follow each other."""
    found = [tensors.get(f"{name}.{role}") for role in ROLES]
    chain = [matrix for matrix in found if matrix is not None]
    fits = all(m.ndim == 2 and m.is_floating_point() and m.numel() for m in chain)
    if not fits or any(after.shape[1] != len(before) for before, after in pairwise(chain)):
        shapes = ", ".join(str(list(matrix.shape)) for matrix in chain)
        raise UserError(f"{path} is damaged: the matrices of {name} are {shapes}. Copy it again.")
    return Adapter(chain[0], found[1], chain[-1], scale)


def scale_of(path: Path, metadata: dict[str, str]) -> float:
    """What an adapter file says that its product is multiplied by."""
    try:
        scale = float(metadata["scale"])
    except (KeyError, ValueError) as error:
        raise UserError(f"{path} is damaged: its scale is {metadata.get('scale')!r}, expected a number.") from error
    if not isfinite(scale):
        raise UserError(f"{path} is damaged: its scale is {scale}, expected a finite number.")
    return scale


def architecture_of(path: Path, metadata: dict[str, str], sites: list[Site]) -> Architecture:
    """What an adapter file says it is for; of a base that is known by its sites, those that the file has."""
    if "prefix" not in metadata:
        return shape_of(path, metadata)
    if "base" not in metadata or metadata["prefix"] not in PREFIXES:
        raise UserError(f"{path} is damaged: its prefix is {metadata['prefix']!r}, its base {metadata.get('base')!r}.")
    return ListedArchitecture(metadata["base"], tuple(sites), metadata["prefix"])


def shape_of(path: Path, metadata: dict[str, str]) -> FluxShape:
    """The FLUX.1 that an adapter file says it is for."""
    try:
        shape = FluxShape(**json.loads(metadata["shape"]))
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise UserError(
            f"{path} is damaged: its shape is {metadata.get('shape')!r}, expected a FLUX's sizes."
        ) from error
    sizes = {key: value for key, value in asdict(shape).items() if key != "guidance"}
    limits = {"double_blocks": (0, MOST_BLOCKS), "single_blocks": (0, MOST_BLOCKS)}
    for key, value in sizes.items():
        low, high = limits.get(key, (1, LARGEST_SIZE))
        if type(value) is not int or not low <= value <= high:
            raise UserError(f"{path} is damaged: its shape says {key} = {value!r}, expected {low} to {high}.")
    return shape


def model_spec(metadata: dict[str, str], architecture: Architecture) -> dict[str, str]:
    """The fields of Stability's model metadata standard that other programs show. No date: same run, same bytes."""
    name = {"flux.1-dev": "flux-1-dev", "flux.1-schnell": "flux-1-schnell"}.get(architecture.name, architecture.name)
    return {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": f"{name}/lora",
        "modelspec.title": f"Meta-LoRA of one {metadata.get('domain', 'person')}",
        "modelspec.description": f"Rank {metadata.get('rank', '?')}; learned with: {metadata.get('caption', '?')}",
    }
