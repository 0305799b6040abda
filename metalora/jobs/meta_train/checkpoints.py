"""Checkpoints of stage 1: one file each, whole or not there, the last few kept, for any number of processes.

No random state is stored: what a step draws depends on the seed and the step alone.
"""

import json
import re
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from ...config import UserError
from ...config_meta_train import MetaTrainConfig
from ...store import files

History = dict[str, list[float]]  # "losses", one a step; "validated" and what was found, one a validation

# They change no step; nor does `steps` where the learning rate does not fall towards the end.
FREE_OPTIONS = ("save_every", "keep", "gradient_checkpointing", "validation_steps")


class Checkpoints:
    """A folder of step-00000500.safetensors."""

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
        tensors = state | {
            f"history.{name}": torch.tensor(values, dtype=torch.float64) for name, values in history.items()
        }
        files.write(
            self.folder / f"step-{step:08d}.safetensors", tensors, "checkpoint", {**self.metadata, "step": str(step)}
        )
        for old in self.all()[: -self.keep]:
            old.unlink()

    def load(self, path: Path) -> tuple[dict[str, Tensor], int, History]:
        """(what the run was, steps done, history). Refuses another run's checkpoint."""
        tensors, metadata = files.read(path, ("checkpoint",))
        different = sorted(key for key in self.metadata if comparable(self.metadata, key) != comparable(metadata, key))
        if different:
            raise UserError(
                f"{path} is of a run with other settings or people ({', '.join(different)} differ). Repeat the first "
                "call to go on with it, choose another --out, or delete its folder to start anew."
            )
        history = {
            name.removeprefix("history."): tensors.pop(name).tolist()
            for name in list(tensors)
            if name.startswith("history.")
        }
        return tensors, int(metadata["step"]), history


def comparable(metadata: dict[str, str], key: str) -> object:
    """A fact without what may differ when a run goes on."""
    value = metadata.get(key)
    if key != "options" or value is None:
        return value
    options = {**asdict(MetaTrainConfig()), **json.loads(value)}  # one that came later was as it is by default
    free = (*FREE_OPTIONS, "steps") if options["objective"] == "paper" else FREE_OPTIONS
    return {name: option for name, option in options.items() if name not in free}
