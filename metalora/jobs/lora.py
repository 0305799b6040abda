"""LoRA and adapter files of any maker, read again: to make images with, to merge, to distill a Meta-Down of."""

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass
from itertools import pairwise
from math import isfinite
from pathlib import Path

from torch import Tensor

from ..backbones.architecture import PRESETS, Architecture, ListedArchitecture, LoRA
from ..backbones.families.flux import FluxShape
from ..backbones.lora_foreign import notices
from ..backbones.lora_products import CONFIG_FILE, declared_in
from ..backbones.lora_reading import read_lora
from ..backbones.protocol import Backbone
from ..config import Phase, Step, UserError
from ..method.adapter import Adapter, Adapters, Site, fold_all
from ..method.flow import generator_of
from ..method.shared_directions import shared_directions
from ..store import files
from . import Job
from .training_files import check_output, save_lora

PEFT_FILE = "adapter_model.safetensors"
ROLES = ("down", "mid", "up")  # in the order of the products
LARGEST_SIZE = 100_000  # of any number of an architecture
MOST_BLOCKS = 1000
PREFIXES = ("transformer.", "diffusion_model.", "lora_unet_")  # of bases that are known by their sites
LARGEST_CONFIG = 10_000_000  # bytes


def load_lora(path: Path, backbone: Backbone) -> tuple[LoRA, list[str]]:
    """(an ordinary LoRA of any maker and key format, a sentence for what was left out, or is of other weights)."""
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
    # One of ours may be zero: of a step before the rate has risen.
    if not own and not any(down.any() and up.any() for down, up in reading.lora.values()):
        raise UserError(f"{path} adds nothing to {backbone.name}: all its numbers or alphas are zero.")
    said = notices(reading.left, tensors)
    elsewhere = files.of_other_weights(path, own, backbone.fingerprint("transformer")) if own else []
    if of_peft and declared is None and not any(key.endswith(".alpha") for key in tensors):
        said.append(f"no {CONFIG_FILE} lies beside it, so alpha is taken to be the rank")
    return reading.lora, [*elsewhere, *(f"{path.name}: {sentence}" for sentence in said)]


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
    check_output(out, overwrite)
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


@dataclass(frozen=True)
class Distilled:
    """What was written, and which files were taken and left."""

    path: Path
    sites: str
    taken: list[str]
    left: list[str]


def meta_down_from_loras(
    folder: Path,
    out: Path,
    backbone: Backbone,
    domain: str,
    meta_rank: int,
    *,
    overwrite: bool = False,
) -> Job[Distilled]:
    """Distill ordinary LoRAs of people, of any key format and rank, into a Meta-Down: what their updates share most."""
    check_output(out, overwrite)
    paths = lora_files(folder)
    width = min(site.in_features for site in backbone.architecture.places)
    if not 1 <= meta_rank <= width:
        raise UserError(f"--meta-rank must be from 1 to {width}, the base's width, got {meta_rank}.")
    if len(paths) < 2:
        raise UserError(f"{folder} has {len(paths)} .safetensors files; at least 2 LoRAs of people are needed.")
    yield Phase(f"reading {len(paths)} LoRAs")
    loras: dict[str, LoRA] = {}
    skipped: dict[str, str] = {}
    for count, path in enumerate(paths, 1):
        try:
            lora, said = load_lora(path, backbone)
            covered(lora, backbone, path)
            loras[path.name] = lora
        except UserError as error:
            skipped[path.name] = str(error)
            said = [f"skipped {path.name}: {error}"]
        for sentence in said:
            yield Phase(sentence)
        yield Step(count, len(paths))
    if len(loras) < 2:
        raise UserError(
            f"{len(loras)} of the {len(paths)} files in {folder} could be used; at least 2 LoRAs of people are needed. "
            f"The first that was skipped: {next(iter(skipped.values()))}"
        )
    preset = covered(set.intersection(*(set(lora) for lora in loras.values())), backbone, folder)
    sites = backbone.sites(preset)
    yield Phase(f"finding the {meta_rank} directions that are shared most at {len(sites)} sites")
    downs = {}
    for count, site in enumerate(sites, 1):
        generator = generator_of("from loras", site.name)
        downs[site.name] = shared_directions([lora[site.name] for lora in loras.values()], meta_rank, generator)
        yield Step(count, len(sites))
    metadata = {
        "base": backbone.name,
        **backbone.architecture.metadata,
        "domain": domain,
        "sites": preset,
        "meta_rank": str(min(map(len, downs.values()))),
        "origin": f"distilled from {len(loras)} LoRAs",
    }
    files.write(out, {f"{name}.down": down for name, down in downs.items()}, "meta-down", metadata)
    return Distilled(out, preset, list(loras), list(skipped))


def lora_files(folder: Path) -> list[Path]:
    """The LoRAs in a folder by name; the adapter files that lie beside ours are not among them."""
    found = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    return [path for path in found if not path.name.endswith((".adapter.safetensors", ".state.safetensors"))]


def covered(names: Collection[str], backbone: Backbone, source: Path) -> str:
    """The largest preset of sites among these."""
    absent: list[str] = []
    for preset in PRESETS:
        absent = [site.name for site in backbone.sites(preset) if site.name not in names]
        if not absent:
            return preset
    raise UserError(
        f"{source} covers {len(names)} sites, but {preset!r} needs {len(absent)} more, such as {absent[0]}. "
        f"A Meta-Down has to cover one of: {', '.join(PRESETS)}."
    )
