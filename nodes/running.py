"""The work of a node: jobs driven inside a prompt, with its progress bar and previews, stopped by Cancel."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from PIL import Image

from ..metalora.config import Phase, Step
from ..metalora.jobs import Job, Progress, run
from .bridge import execution
from .words import told_in_widget_names

Result = TypeVar("Result")
Preview = Callable[[Step], Image.Image | None]


@contextmanager
def work(**otherwise: str) -> Iterator[None]:
    """What a node does inside may train, and tells the user in the words of the page what to mend.

    `otherwise` are the node's own names of settings that others call otherwise, such as faces="finder".
    """
    with told_in_widget_names(**otherwise), execution.ordinary_tensors():
        yield


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
