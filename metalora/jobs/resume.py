"""The state of a stopped run on disk: enough to go on as if it had not stopped.

No random state is stored: what a step draws depends on the seed and the step alone (`flow.generator_of`).
"""

import json
from pathlib import Path

import torch

from ..config import UserError
from ..method.adapter import Adapters
from ..store import files

# Options that may differ when a run goes on: they do not change what a step does.
FREE_OPTIONS = ("steps", "save_every", "gradient_checkpointing", "turn")  # a turned photo has another digest


class SavedRun:
    """`<out>.state.safetensors`: the adapter, its optimizer and the losses so far."""

    def __init__(self, path: Path, metadata: dict[str, str]):
        self.path, self.metadata = path, metadata

    def exists(self) -> bool:
        """Whether an earlier run was stopped here."""
        return self.path.is_file()

    def save(self, adapters: Adapters, optimizer: torch.optim.Optimizer, losses: list[float]) -> None:
        """Replace the file."""
        moments = {
            f"optimizer.{index}.{name}": value.clone()
            for index, state in optimizer.state_dict()["state"].items()
            for name, value in state.items()
        }
        history = {"losses": torch.tensor(losses, dtype=torch.float64)}
        files.write(self.path, {**adapters.tensors(), **moments, **history}, "state", self.metadata)

    def load(self, adapters: Adapters, optimizer: torch.optim.Optimizer) -> list[float]:
        """Put the run back; the losses so far. Refuses the state of another run."""
        tensors, metadata = files.read(self.path, ("state",))
        different = sorted(key for key in self.metadata if _identity(self.metadata, key) != _identity(metadata, key))
        if different:
            raise UserError(
                f"{self.path} is the state of a run with other settings or inputs ({', '.join(different)} differ). "
                "Delete it to start anew, choose another --out, or repeat the first call to go on with it."
            )
        for name, adapter in adapters.by_name.items():
            for role, weight in adapter.weights().items():
                weight.data.copy_(tensors[f"{name}.{role}"])
        state: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optimizer."):
                _, index, name = key.split(".")
                state.setdefault(int(index), {})[name] = value
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        return tensors["losses"].tolist()

    def remove(self) -> None:
        """The run is finished."""
        self.path.unlink(missing_ok=True)


def _identity(metadata: dict[str, str], key: str) -> object:
    value = metadata.get(key)
    if key != "options" or value is None:
        return value
    return {name: option for name, option in json.loads(value).items() if name not in FREE_OPTIONS}
