"""Checkpoints of stage 1: one file each, whole or not there, the last few kept, for any number of processes.

No random state is stored: what a step draws depends on the seed and the step alone. Heads are stored by identity, so
another number of processes only deals them anew.
"""

import json
import re
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from ..config import UserError
from ..config_meta_train import MetaTrainConfig
from ..method.meta_train import MetaTraining
from ..store import files

# They change no step.
FREE_KNOBS = ("steps", "save_every", "keep", "gradient_checkpointing", "validation_steps")
MOMENTS = ("exp_avg", "exp_avg_sq", "step")
ROWS = ("weights", "mean", "square", "steps")


class Checkpoints:
    """A folder of step-00000500.safetensors."""

    def __init__(self, folder: Path, facts: dict[str, str], keep: int):
        self.folder, self.facts, self.keep = folder, facts, keep

    def latest(self) -> Path | None:
        """The newest one."""
        found = self.all()
        return found[-1] if found else None

    def all(self) -> list[Path]:
        """Old to new; half-written files have another ending."""
        return sorted(path for path in self.folder.glob("step-*.safetensors") if re.fullmatch(r"step-\d+", path.stem))

    def save(self, training: MetaTraining, step: int, history: dict[str, list[float]]) -> None:
        """Every process calls this; process 0 gathers the heads, writes, and deletes what is too old."""
        heads = gathered(training)
        training.ranks.wait()
        if training.ranks.index != 0:
            return
        tensors = {f"{name}.down": down for name, down in training.meta_down().items()}
        moments = training.down.optimizer.state_dict()["state"].get(0, {})
        tensors |= {f"optimizer.{name}": value.cpu() for name, value in moments.items()}
        tensors |= heads
        tensors |= {f"history.{name}": torch.tensor(values, dtype=torch.float64) for name, values in history.items()}
        facts = {**self.facts, "step": str(step), "visit": str(training.visit)}
        files.write(self.folder / f"step-{step:08d}.safetensors", tensors, "checkpoint", facts)
        for old in self.all()[: -self.keep]:
            old.unlink()

    def load(self, path: Path, training: MetaTraining) -> tuple[int, dict[str, list[float]]]:
        """Put a run back, each process its own people; (steps done, history). Refuses another run's checkpoint."""
        tensors, facts = files.read(path, ("checkpoint",))
        different = sorted(key for key in self.facts if comparable(self.facts, key) != comparable(facts, key))
        if different:
            raise UserError(
                f"{path} is of a run with other settings or people ({', '.join(different)} differ). Repeat the first "
                "call to go on with it, choose another --out, or delete its folder to start anew."
            )
        training.begin(int(facts["visit"]))
        with torch.no_grad():
            for name, adapter in training.adapters.by_name.items():
                adapter.down.data.copy_(tensors[f"{name}.down"])
            for row, name in enumerate(training.heads.names):
                for part, stack in rows_of(training).items():
                    stack[row] = tensors[f"heads.{name}.{part}"].to(stack)
        moments = {name: tensors[f"optimizer.{name}"] for name in MOMENTS if f"optimizer.{name}" in tensors}
        optimizer = training.down.optimizer
        optimizer.load_state_dict(
            {"state": {0: moments} if moments else {}, "param_groups": optimizer.state_dict()["param_groups"]}
        )
        history = {
            name.removeprefix("history."): value.tolist()
            for name, value in tensors.items()
            if name.startswith("history.")
        }
        return int(facts["step"]), history


def rows_of(training: MetaTraining) -> dict[str, Tensor]:
    """What belongs to the identities of this process, a row each."""
    return {part: getattr(training.heads, part) for part in ROWS}


def gathered(training: MetaTraining) -> dict[str, Tensor]:
    """The heads of everyone in the bucket on process 0, by identity."""
    heads: dict[str, Tensor] = {}
    device = training.down.flat.device
    for position, person in enumerate(training.bucket(training.visit)):
        owner = training.owner(position, training.visit)
        for part, stack in rows_of(training).items():
            own = owner == training.ranks.index
            row = stack[training.row[person.name]] if own else stack.new_empty(stack.shape[1:])
            if own or training.ranks.index == 0:
                row = training.ranks.to_first(row.to(device), owner)
            if training.ranks.index == 0:
                heads[f"heads.{person.name}.{part}"] = row.clone()
    return heads


def comparable(facts: dict[str, str], key: str) -> object:
    """A fact without what may differ when a run goes on."""
    value = facts.get(key)
    if key != "knobs" or value is None:
        return value
    knobs = {**asdict(MetaTrainConfig()), **json.loads(value)}  # one that came later was as it is by default
    return {name: knob for name, knob in knobs.items() if name not in FREE_KNOBS}
