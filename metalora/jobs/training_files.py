"""The files of a training: the Meta-Down that it starts from, what it leaves when it is stopped, and LoRAs.

A Meta-Down is a file, or drawn from the seed. What is left is enough to go on as if the run had not stopped; no random
state is stored, as what a step draws depends on the seed and the step alone (`flow.generator_of`).
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..backbones.architecture import STRONGEST, Architecture, LoRA, check_lora, format_lora
from ..backbones.protocol import Backbone
from ..config import PersonalizeConfig, UserError, is_text
from ..method.adapter import Adapters, Site, fold_all, new_adapters, random_meta_down
from ..method.flow import generator_of
from ..store import files

RANDOM = "random"  # the Meta-Down that has learned nothing, drawn from the seed: the control
SHIPPED = Path(__file__).parents[1] / "data" / "meta_downs"
ALL = "all"  # the domain of a Meta-Down that was trained on every class at once
Options = dict[str, Any]
# Options that may differ when a run goes on: they do not change what a step does. A turned photo has another digest.
FREE_OPTIONS = ("steps", "save_every", "lora_every", "loras_kept", "gradient_checkpointing", "turn")


def shipped_meta_down(base: str, class_name: str) -> Path | None:
    """The Meta-Down that comes with the package for this base and class, or for every class."""
    shipped = shipped_meta_downs(base)
    return shipped.get(class_name, shipped.get(ALL))


def shipped_meta_downs(base: str) -> dict[str, Path]:
    """By class, the Meta-Downs that come with the package for this base."""
    found = {}
    for path in sorted(SHIPPED.glob("*.safetensors")):
        with files.opened(path) as file:
            metadata = files.own_metadata(file.metadata())
        if metadata["base"] == base:
            found[metadata["domain"]] = path
    return found


def starting_adapters(
    backbone: Backbone, config: PersonalizeConfig, meta_down: str | None
) -> tuple[Adapters, dict[str, str]]:
    """Adapters at their start, and the metadata of the Meta-Down they stand on."""
    sites, generator = backbone.sites(config.sites), generator_of(config.seed, "heads")
    if config.method != "meta-lora":
        if meta_down is not None:
            raise UserError(f"--meta-down is for --method meta-lora; {config.method} trains without one.")
        return new_adapters(sites, config.rank, generator, scale=config.scale), {}
    meta_down = meta_down or default_meta_down(backbone.name, config.class_name)
    if meta_down == RANDOM:
        downs = untrained_meta_down(sites, config, config.rank)
        origin = {"meta_down": f"random, seed {config.seed}", "meta_rank": str(config.meta_rank)}
    else:
        downs, origin = read_meta_down(Path(meta_down), sites, backbone.name, config.rank)
    return new_adapters(sites, config.rank, generator, meta_down=downs, scale=config.scale), origin


def untrained_meta_down(sites: Sequence[Site], config: PersonalizeConfig, rank: int) -> dict[str, Tensor]:
    """Site name -> [meta_rank, in], the control; refused where it is too small for LoRAs of this rank."""
    if rank > config.meta_rank:
        raise UserError(
            f"rank (r2) {rank} is larger than meta_rank (r1) {config.meta_rank}: a finished LoRA cannot have a higher "
            "rank than its Meta-Down. Lower --rank, raise --meta-rank, or use --method lora."
        )
    return random_meta_down(sites, config.meta_rank, generator_of(config.seed, "meta-down"))


def default_meta_down(base: str, class_name: str) -> str:
    """The shipped one, where none is named; where none is shipped either, what to do."""
    if found := shipped_meta_down(base, class_name):
        return str(found)
    shipped = shipped_meta_downs(base)
    others = f"For {base} there are shipped ones: say --class {' or --class '.join(shipped)}. " if shipped else ""
    raise UserError(
        f"--method meta-lora needs --meta-down FILE, trained for this base and class. {others}Without one, "
        "--method lora trains a plain LoRA; --meta-down random is the untrained control."
    )


def read_meta_down(path: Path, sites: Sequence[Site], base: str, rank: int) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(site name -> [meta_rank, in], metadata); refused unless it was made for this base and every site fits."""
    tensors, metadata = files.read(path, ("meta-down",), base=base)
    downs = downs_of(path, tensors)
    absent = [site.name for site in sites if site.name not in downs]
    if absent:
        raise UserError(f"{path} has no Meta-Down for {len(absent)} of the {len(sites)} sites, such as {absent[0]}.")
    misfits = [site for site in sites if downs[site.name].shape[1] != site.in_features]
    if misfits:
        raise UserError(
            f"{path} does not fit at {len(misfits)} sites: {misfits[0].name} has shape "
            f"{tuple(downs[misfits[0].name].shape)}, but its layer takes {misfits[0].in_features} numbers."
        )
    meta_rank = min(downs[site.name].shape[0] for site in sites)
    if rank > meta_rank:
        raise UserError(f"{path} has rank {meta_rank} (r1), so --rank (r2) can be at most that, not {rank}.")
    origin = {"meta_down": files.digest_of_tensors(tensors), "meta_rank": str(meta_rank)}
    return downs, origin | {"meta_domain": metadata["domain"]} if "domain" in metadata else origin


def downs_of(path: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Site name -> [meta_rank, in] of a Meta-Down file's tensors; refused unless all are sane matrices."""
    downs = {name.removesuffix(".down"): tensor for name, tensor in tensors.items() if name.endswith(".down")}
    for name, down in downs.items():
        if down.ndim != 2 or not down.numel() or not down.is_floating_point():
            raise UserError(f"{path} is damaged: {name}.down is {list(down.shape)} of {down.dtype}, not a matrix.")
        if not down.float().abs().max() <= STRONGEST:
            raise UserError(f"{path} is damaged: {name}.down holds NaN, infinity or numbers like it.")
    if not downs:
        raise UserError(f"{path} says that it is a Meta-Down, but holds no down layer: it is damaged.")
    return downs


class SavedRun:
    """`<out>.state.safetensors`: adapters, their optimizer and the losses so far."""

    def __init__(self, path: Path, metadata: dict[str, str]):
        self.path, self.metadata = path, metadata

    def steps(self) -> int:
        """How many an earlier run had done when it was stopped here."""
        if not self.path.is_file():
            return 0
        tensors, _ = files.read(self.path, ("state",))
        return len(tensors["losses"])

    def save(self, adapters: Adapters, optimizer: Optimizer, losses: list[float]) -> None:
        """Replace the file."""
        history = {"losses": torch.tensor(losses, dtype=torch.float64)}
        files.write(
            self.path, {**adapters.tensors(), **optimizer_tensors(optimizer), **history}, "state", self.metadata
        )

    def load(self, adapters: Adapters, optimizer: Optimizer) -> list[float]:
        """Put the run back; the losses so far, none where nothing was saved. Refuses the state of another run."""
        if not self.path.is_file():
            return []
        tensors, metadata = files.read(self.path, ("state",))
        check_same_run(self.path, metadata, self.metadata, fixed_options)
        for name, adapter in adapters.by_name.items():
            for role, weight in adapter.weights().items():
                weight.data.copy_(tensors[f"{name}.{role}"])
        load_optimizer(optimizer, tensors)
        return tensors["losses"].tolist()

    def remove(self) -> None:
        """The run is finished."""
        self.path.unlink(missing_ok=True)


def check_same_run(path: Path, found: dict[str, str], own: dict[str, str], fixed: Callable[[Options], Options]) -> None:
    """Refuse what a run has left that had other settings or inputs than this one."""

    def comparable(metadata: dict[str, str], key: str) -> object:
        value = metadata.get(key)
        return fixed(json.loads(value)) if key == "options" and value is not None else value

    if different := sorted(key for key in own if comparable(own, key) != comparable(found, key)):
        raise UserError(
            f"{path} is of a run with other settings or inputs ({', '.join(different)} differ). Delete it to start "
            "anew, choose another --out, or repeat the first call to go on with it."
        )


def fixed_options(options: Options) -> Options:
    """Those of stage 2 that a run that goes on must share."""
    return {name: option for name, option in options.items() if name not in FREE_OPTIONS}


def optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """What an optimizer remembers, as "optimizer.<parameter>.<name>" on the CPU.

    "group.<index>.<name>" is what it keeps beside its settings, such as the rate that Prodigy has found.
    """
    kept = optimizer.state_dict()
    groups = [  # a step's rate is no state
        {name: value for name, value in group.items() if name != "lr" and value != optimizer.defaults.get(name)}
        for group in kept["param_groups"]
    ]
    return flat(kept["state"], "optimizer") | flat(dict(enumerate(groups)), "group")


def load_optimizer(optimizer: Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave; nothing, for one that had not moved yet."""
    groups = optimizer.state_dict()["param_groups"]
    for index, numbers in unflat(tensors, "group").items():
        groups[index].update(numbers)
    optimizer.load_state_dict({"state": unflat(tensors, "optimizer"), "param_groups": groups})


def flat(tree: dict[Any, Any], name: str) -> dict[str, Tensor]:
    """The tensors and numbers in a tree by "name.key.key", on the CPU; what else is there is a setting."""
    found: dict[str, Tensor] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            found |= flat(value, f"{name}.{key}")
        elif isinstance(value, Tensor):
            found[f"{name}.{key}"] = value.detach().cpu().clone()
        elif isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value):
            found[f"{name}.{key}"] = torch.tensor(value, dtype=torch.int64 if isinstance(value, int) else torch.float64)
    return found


def unflat(tensors: dict[str, Tensor], name: str) -> dict[int, Any]:
    """The inverse, by parameter or group; no optimizer has tensors of one number in the types that numbers get."""
    tree: dict[Any, Any] = {}
    for path in names_in(tensors, name):
        *keys, last = path.split(".")
        inner = tree
        for key in keys or ["0"]:
            inner = inner.setdefault(key, {})
        value = tensors[f"{name}.{path}"]
        inner[last] = value.item() if value.ndim == 0 and value.dtype in (torch.int64, torch.float64) else value
    return {int(key): value for key, value in tree.items()}


def names_in(tensors: dict[str, Tensor], group: str) -> list[str]:
    """What stands behind "<group>." in their names."""
    return [name.removeprefix(f"{group}.") for name in tensors if name.startswith(f"{group}.")]


def check_output(out: Path, overwrite: bool) -> None:
    """Refuse, before any work, a place that cannot be written or that holds a finished LoRA."""
    if out.suffix != ".safetensors":
        raise UserError(f"--out is {out}, but a LoRA file ends with .safetensors.")
    if out.exists() and not overwrite:
        raise UserError(f"{out} exists already. Choose another --out, or say --overwrite to replace it.")
    if not is_text(str(out)):
        raise UserError(f"--out is {str(out)!r}, which is no UTF-8: no LoRA of that name could be loaded.")
    files.check_writable(out)


def save_lora(path: Path, lora: LoRA, key_format: str, architecture: Architecture, metadata: dict[str, str]) -> None:
    """Write an ordinary LoRA: every key exists in the base, every shape fits, and every number is one of use."""
    tensors = format_lora(lora, key_format, architecture)
    check_lora(tensors, key_format, architecture)
    files.write(path, tensors, "lora", {**metadata, "key_format": key_format, **model_spec(metadata, architecture)})


@dataclass(frozen=True)
class IntermediateLoras:
    """The LoRA at steps on the way, each a file of its own: `ada-step00100.safetensors` beside `ada.safetensors`."""

    out: Path  # the finished LoRA, which is written after the last step
    key_format: str
    architecture: Architecture
    metadata: dict[str, str]
    adapters: Adapters
    config: PersonalizeConfig

    def at(self) -> dict[int, Callable[[], None]]:
        """What to do after which steps."""
        every = self.config.lora_every
        return {step: partial(self.save, step) for step in range(every, self.config.steps, every)} if every else {}

    def save(self, step: int) -> None:
        """Write this step's, and remove the one that is no longer among the last `loras_kept`."""
        metadata = {**self.metadata, "step": str(step)}
        save_lora(self.path(step), fold_all(self.adapters), self.key_format, self.architecture, metadata)
        if self.config.loras_kept:
            self.path(step - self.config.loras_kept * self.config.lora_every).unlink(missing_ok=True)

    def path(self, step: int) -> Path:
        """Where a step's is."""
        return self.out.with_name(f"{self.out.stem}-step{step:05}{self.out.suffix}")

    def check_free(self) -> None:
        """Refuse, before any work, to write over another run's."""
        for path in map(self.path, self.at()):
            if path.exists():
                raise UserError(f"{path} is of an earlier training. Choose another --out, or move it away.")


def model_spec(metadata: dict[str, str], architecture: Architecture) -> dict[str, str]:
    """The fields of Stability's model metadata standard that other programs show. No date: same run, same bytes."""
    name = {"flux.1-dev": "flux-1-dev", "flux.1-schnell": "flux-1-schnell"}.get(architecture.name, architecture.name)
    return {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": f"{name}/lora",
        "modelspec.title": f"Meta-LoRA of one {metadata.get('domain', 'person')}",
        "modelspec.description": f"Rank {metadata.get('rank', '?')}; learned with: {metadata.get('caption', '?')}",
    }
