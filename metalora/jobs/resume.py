"""What a stopped run leaves on disk: enough to go on as if it had not stopped.

No random state is stored: what a step draws depends on the seed and the step alone (`flow.generator_of`).
"""

import json
import re
from collections.abc import Callable
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..config import UserError
from ..config_meta_train import MetaTrainConfig
from ..method.adapter import Adapters
from ..store import files

History = dict[str, list[float]]  # "losses", one a step; "validated" and what was found, one a validation
Options = dict[str, Any]

# Options that may differ when a run goes on: they do not change what a step does. A turned photo has another digest.
FREE_OPTIONS = ("steps", "save_every", "lora_every", "loras_kept", "gradient_checkpointing", "turn")
FREE_IN_STAGE_ONE = ("save_every", "keep", "gradient_checkpointing", "validation_steps")


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


class Checkpoints:
    """A folder of step-00000500.safetensors of stage 1, the last few kept, for any number of processes."""

    def __init__(self, folder: Path, metadata: dict[str, str], keep: int):
        self.folder, self.metadata, self.keep = folder, metadata, keep

    def latest(self) -> Path | None:
        """The newest one."""
        found = self.all()
        return found[-1] if found else None

    def all(self) -> list[Path]:
        """Old to new; half-written files have another ending."""
        return sorted(path for path in self.folder.glob("step-*.safetensors") if re.fullmatch(r"step-\d+", path.stem))

    def save(self, state: dict[str, Tensor], step: int, history: History) -> None:
        """Write what a run is at this step, and delete what is too old; process 0 alone calls this."""
        kept = {f"history.{name}": torch.tensor(values, dtype=torch.float64) for name, values in history.items()}
        path = self.folder / f"step-{step:08d}.safetensors"
        files.write(path, state | kept, "checkpoint", {**self.metadata, "step": str(step)})
        for old in self.all()[: -self.keep]:
            old.unlink()

    def load(self, path: Path) -> tuple[dict[str, Tensor], int, History]:
        """(what the run was, steps done, history). Refuses another run's checkpoint."""
        tensors, metadata = files.read(path, ("checkpoint",))
        check_same_run(path, metadata, self.metadata, fixed_options_of_stage_one)
        history = {name: tensors.pop(f"history.{name}").tolist() for name in names_in(tensors, "history")}
        return tensors, int(metadata["step"]), history


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


def fixed_options_of_stage_one(options: Options) -> Options:
    """The same of stage 1, where `steps` count too if the learning rate falls towards the end."""
    options = {**asdict(MetaTrainConfig()), **options}  # one that came later was as it is by default
    free = (*FREE_IN_STAGE_ONE, "steps") if options["objective"] == "paper" else FREE_IN_STAGE_ONE
    return {name: option for name, option in options.items() if name not in free}


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
