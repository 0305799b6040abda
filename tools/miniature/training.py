"""What the long trainings share: steps that resume exactly, a moving average, whole checkpoints, progress."""

import argparse
import copy
import io
import json
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, Dataset

from metalora.store.files import write_bytes

# All that is random in a step comes from its generator. What a step needs is drawn from it on the CPU, ahead of time if
# there are workers; a loss that draws as it goes is given the generator itself.
Draw = Callable[[torch.Generator], Any]
Loss = Callable[[nn.Module, Any], tuple[Tensor, dict[str, Tensor | float]]]  # the loss, and figures to print


@dataclass(frozen=True)
class Step:
    index: int
    figures: dict[str, Tensor | float]


@dataclass(frozen=True)
class Draws(Dataset):
    """The batch of every step; that of step n is the same whoever draws it, and when."""

    draw: Draw
    steps: range

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, index: int) -> Any:
        return self.draw(torch.Generator().manual_seed(self.steps[index]))

    def ahead(self, workers: int) -> DataLoader:
        """In order, drawn by so many processes while the steps before are taken."""
        return DataLoader(
            self,
            batch_size=None,
            num_workers=workers,
            collate_fn=_as_it_is,
            pin_memory=torch.cuda.is_available(),
            prefetch_factor=4 if workers else None,
        )


def _as_it_is(drawn: Any) -> Any:
    return drawn


def parser_of(described: str | None, out: str, steps: int, batch: int | None) -> argparse.ArgumentParser:
    """The flags that every training has; what it learns from, it adds itself."""
    parser = argparse.ArgumentParser(description=described, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("data/miniature") / out)
    parser.add_argument("--steps", type=int, default=steps, help=f"in all, those done before included ({steps})")
    if batch is not None:
        parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--save-minutes", type=float, default=5, help="between two checkpoints (5)")
    parser.add_argument("--report-minutes", type=float, default=30, help="between two sheets and exports (30)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="of the CPU (default: torch's choice)")
    return parser


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The command line; the number of threads is set."""
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    return arguments


class Training:
    """A model, its average and its optimizers, from the last checkpoint if there is one.

    Muon moves the weights in `matrices`, if there are some, and AdamW the others.
    """

    def __init__(
        self,
        path: pathlib.Path,
        model: nn.Module,
        steps: int,
        peak_rate: float,
        weight_decay: float = 0.01,
        matrices: Sequence[nn.Parameter] = (),
    ):
        self.path, self.model, self.steps, self.peak_rate, self.step = path, model, steps, peak_rate, 0
        self.seconds = 0.0  # spent in steps, over all runs
        muons = {id(weight) for weight in matrices}
        others = [weight for weight in model.parameters() if id(weight) not in muons]
        self.optimizers: list[torch.optim.Optimizer] = [
            # fused: 10 ms a step for FLUX's 10 M numbers on two cores instead of 87
            torch.optim.AdamW(others, lr=peak_rate, betas=(0.9, 0.99), weight_decay=weight_decay, fused=True)
        ]
        if matrices:  # at a rate that moves them as far as AdamW would
            muon = torch.optim.Muon(matrices, lr=peak_rate, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
            self.optimizers.append(muon)
        averages = [weight.detach() for weight in model.parameters()]
        if path.exists():
            state = torch.load(path, weights_only=True, map_location="cpu")
            self.step, self.seconds, averages = state["step"], state["seconds"], state["average"]["weights"]
            for one, stored in zip(self.optimizers, state["optimizers"], strict=True):
                one.load_state_dict(stored)
            self.model.load_state_dict(state["model"])
        self.average = AveragedModel(model, multi_avg_fn=self._move_average)
        self.average.n_averaged.fill_(self.step)
        with torch.no_grad():
            torch._foreach_copy_(list(self.average.parameters()), averages)

    def run(self, loss_of: Loss, draw: Draw = _as_it_is, workers: int = 0) -> Iterator[Step]:
        self.model.train()
        began = time.perf_counter()
        for drawn in Draws(draw, range(self.step, self.steps)).ahead(workers):
            for optimizer in self.optimizers:
                optimizer.zero_grad()
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(self.step, self.steps, self.peak_rate)
            loss, figures = loss_of(self.model, drawn)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            for optimizer in self.optimizers:
                optimizer.step()
            self.average.update_parameters(self.model)
            self.step += 1
            self.seconds += time.perf_counter() - began
            yield Step(self.step - 1, figures)
            began = time.perf_counter()

    def _move_average(self, averages: list[Tensor], weights: list[Tensor], _count: Tensor) -> None:
        """Over about the last 1,000 steps; a young average forgets faster. The step is known without asking a GPU."""
        torch._foreach_lerp_(averages, weights, max(1 / 1000, 1 / (1 + (self.step + 1) / 10)))

    def averaged(self) -> nn.Module:
        return copy.deepcopy(self.average.module).eval()

    def save(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "average": {"weights": [weight.detach() for weight in self.average.parameters()]},
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "seconds": self.seconds,
        }
        data = io.BytesIO()
        torch.save(state, data)
        write_bytes(self.path, data.getvalue())
        self.path.with_name("facts.json").write_text(json.dumps(self.facts(), indent=1) + "\n")

    def description(self) -> str:
        return f"{self.facts()['parameters'] / 1e6:.1f} M parameters, from step {self.step}"

    def facts(self) -> dict[str, int | float | str]:
        """What a model card says of a training."""
        return {
            "steps": self.step,
            "of": self.steps,
            "parameters": sum(weight.numel() for weight in self.model.parameters()),
            "peak_learning_rate": self.peak_rate,
            "hours_in_steps": round(self.seconds / 3600, 2),
            "torch": torch.__version__,
        }


def follow(
    training: Training, steps: Iterator[Step], arguments: argparse.Namespace, report: Callable[[], None]
) -> None:
    """Run to the end: a line every 100 steps; every so many minutes, and at the end, a checkpoint and a report."""
    recent, began, first = [], time.time(), training.step
    saved = reported = began
    for step in steps:
        recent.append(step.figures)
        if step.index % 100 == 99:
            rate = (training.step - first) / (time.time() - began)
            means = "  ".join(f"{name} {np.mean([float(one[name]) for one in recent]):.4f}" for name in step.figures)
            left = (training.steps - training.step) / rate / 60
            print(
                f"step {training.step}/{training.steps}  {means}  {rate:.2f} steps/s  {left:.0f} min left", flush=True
            )
            recent.clear()
        ended = training.step == training.steps
        if ended or time.time() - saved > 60 * arguments.save_minutes:
            saved = time.time()
            training.save()
        if ended or time.time() - reported > 60 * arguments.report_minutes:
            reported = time.time()
            report()


def learning_rate(step: int, steps: int, peak: float, warm_up: int = 200, decay: float = 0.25) -> float:
    """Up in `warm_up` steps, flat, and down over the last share `decay`; until then more steps can be asked for."""
    return peak * min(1.0, (step + 1) / warm_up, max(0.02, (steps - step) / (decay * steps)))
