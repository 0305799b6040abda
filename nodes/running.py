"""Driving a job inside a prompt: with the node's progress bar and previews, stopped by Cancel between two steps."""

import io
import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from PIL import Image

from ..metalora.config import Phase, Step
from ..metalora.jobs import Job, Progress, run
from ..metalora.jobs.plots import loss_curve
from .bridge import execution

Result = TypeVar("Result")
Preview = Callable[[Step], Image.Image | None]
EVERY = 25  # steps from one preview to the next


def driven(job: Job[Result], preview: Preview = lambda step: None) -> Result:
    """The job's result. A cancel closes the job, which keeps what was done, and goes on as ComfyUI's own exception."""
    bar = execution.progress_bar()

    def show(progress: Progress) -> None:
        execution.stop_if_cancelled()
        if isinstance(progress, Phase):
            logging.info("Meta-LoRA: %s", progress.text)
        else:
            bar(progress.index, progress.total, preview(progress))

    return run(job, show)


class LossPreview:
    """The loss curve so far, now and then."""

    def __init__(self, label: str):
        self.label, self.losses = label, list[float]()

    def __call__(self, step: Step) -> Image.Image | None:
        if step.loss is None:
            return None
        self.losses.append(step.loss)
        if step.index % EVERY and step.index != step.total:
            return None
        return picture_of({self.label: self.losses})


def picture_of(losses: dict[str, Sequence[float]]) -> Image.Image:
    """A loss curve as ComfyUI shows previews."""
    data: Any = loss_curve({label: list(values) for label, values in losses.items()})
    return Image.open(io.BytesIO(data)).convert("RGB")
