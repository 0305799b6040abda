"""The work of a node: jobs driven inside a prompt, with its bar, previews, log and words, stopped by Cancel."""

import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from PIL import Image

from ..metalora.config import Phase, Step, UserError
from ..metalora.jobs import Job, Progress, run
from .bridge import execution

FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
OTHERWISE = {"--class": "class_name", "--faces": "embedder", "--out": "name"}  # than by their letters
PIP = ("--force-reinstall", "--no-deps")
COMMAND = re.compile(r"`metalora (crops|merge|benchmark plan|benchmark run|benchmark report)[^`]*`")
NODES = {
    "crops": "Augment Face Crops",
    "merge": "Merge to LoRA File",
    "benchmark plan": "Benchmark Prompts",
    "benchmark run": "Benchmark Runner",
    "benchmark report": "Benchmark Report",
}
NO_NODE = re.compile(r"[;.] `metalora (doctor|info)\b[^.;]*")  # advice that only the command line can follow
LOGGED_EVERY = 25  # steps
Result = TypeVar("Result")
Preview = Callable[[Step], Image.Image | None]


@contextmanager
def work(**otherwise: str) -> Iterator[None]:
    """What a node does inside may train, and tells the user in the words of the page what to mend.

    `otherwise` are the node's own names of settings that others call otherwise, such as faces="finder".
    """
    try:
        with torch.inference_mode(False):  # ComfyUI runs nodes in inference mode, where nothing can be trained
            yield
    except UserError as error:
        raise MetaLoRA(in_widget_names(str(error), **otherwise)) from error


def driven(job: Job[Result], preview: Preview = lambda step: None) -> Result:
    """The job's result. A cancel closes the job, which keeps what was done, and goes on as ComfyUI's own exception."""
    bar, log = execution.progress_bar(), StepLog()

    def show(progress: Progress) -> None:
        execution.stop_if_cancelled()
        if isinstance(progress, Phase):
            logging.info("Meta-LoRA: %s", progress.text)
            return
        bar(progress.index, progress.total, preview(progress))
        if line := log.line(progress, time.monotonic()):
            logging.info("Meta-LoRA: %s", line)

    return run(job, show)


class StepLog:
    """A line now and then: the steps that are done, the mean loss since the line before, and the time left."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.first: tuple[int, float] | None = None  # (step, seconds) that the time left is counted from

    def line(self, step: Step, now: float) -> str | None:
        """What to log at this time in seconds; nothing for steps that are no training's, and most of the others."""
        if step.loss is None:
            return None
        self.losses.append(step.loss)
        self.first = self.first or (step.index, now)
        if step.index % LOGGED_EVERY and step.index != step.total:
            return None
        mean, self.losses = sum(self.losses) / len(self.losses), []
        done, seconds = step.index - self.first[0], now - self.first[1]
        left = round(seconds / done * (step.total - step.index)) if done else 0
        said = f", {left // 60}:{left % 60:02} left" if done and step.index < step.total else ""
        return f"step {step.index} of {step.total}, loss {mean:.4f}{said}"


class MetaLoRA(UserError):
    """Shown by ComfyUI as the title of a message: a class's name, behind its module's unless that is `builtins`."""


MetaLoRA.__module__ = "builtins"


def in_widget_names(message: str, **otherwise: str) -> str:
    """ "--learning-rate" as "learning_rate"; `otherwise` are this node's own names, such as faces="finder"."""
    message = COMMAND.sub(lambda found: f"*{NODES[found[1]]}*", NO_NODE.sub("", message))
    own = {f"--{flag}": name for flag, name in otherwise.items()}
    return FLAG.sub(lambda found: own.get(found[0]) or widget_of(found[0]), message)


def widget_of(flag: str) -> str:
    """The widget that sets what a flag sets."""
    return flag if flag in PIP else OTHERWISE.get(flag, flag.removeprefix("--").replace("-", "_"))
