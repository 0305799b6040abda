"""Every setting of a job, declared once: its default, its range and its help.

The command line makes its flags from these dataclasses and the nodes make their widgets from them, so a range or a
help text is written in exactly one place. `UserError` lives here because every room of the package may raise it.
"""

import dataclasses
import string
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


class UserError(Exception):
    """Something the user can mend: what was wrong, what was found, what to do. Shown without a traceback."""


def option(
    default: Any,
    help: str,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] | None = None,
    flag: str | None = None,
) -> Any:
    """A dataclass field that carries its help text, its inclusive range or choices, and its flag if not its name."""
    return field(default=default, metadata={"help": help, "low": low, "high": high, "choices": choices, "flag": flag})


def is_text(value: str) -> bool:
    """Whether it can be written to a file: bytes of a command line that are not UTF-8 cannot."""
    return value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value)


def fill_in(template: str, words: Mapping[str, str]) -> str:
    """The template with each {name} replaced, and nothing else: str.format also takes attributes and widths.

    ValueError for braces that are not a name among the words.
    """
    text = ""
    for literal, name, width, conversion in string.Formatter().parse(template):
        text += literal
        if name is not None:
            if name not in words or width or conversion:
                raise ValueError(f"{{{name}{'!' + conversion if conversion else ''}{':' + width if width else ''}}}")
            text += words[name]
    return text


def flag_of(option_field: dataclasses.Field) -> str:
    """The command-line spelling of an option: `learning_rate` -> `--learning-rate`."""
    return option_field.metadata.get("flag") or "--" + option_field.name.replace("_", "-")


def check_options(config: Any) -> None:
    """Raise one UserError that lists every option whose type, range or choice is wrong."""
    problems = [problem for f in dataclasses.fields(config) if (problem := _problem(f, getattr(config, f.name)))]
    if problems:
        raise UserError(f"{type(config).__name__}: " + "; ".join(problems) + ".")


def _problem(option_field: dataclasses.Field, value: Any) -> str | None:
    low, high, choices = (option_field.metadata.get(key) for key in ("low", "high", "choices"))
    name = option_field.name
    if not _fits(value, option_field.type):
        wanted = getattr(option_field.type, "__name__", option_field.type)
        return f"{name} must be {wanted}, got {value!r}"
    if isinstance(value, str) and not is_text(value):
        return f"{name} is not text in this system's encoding (UTF-8 is needed), got {value!r}"
    if choices and value not in choices:
        return f"{name} must be one of {', '.join(choices)}, got {value!r}"
    if isinstance(value, float) and not abs(value) < float("inf"):
        return f"{name} must be a finite number, got {value}"
    if low is not None and value is not None and value < low:
        return f"{name} must be at least {low}, got {value}"
    if high is not None and value is not None and value > high:
        return f"{name} must be at most {high}, got {value}"
    return None


def _fits(value: Any, kind: Any) -> bool:
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        return any(_fits(value, member) for member in typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        return isinstance(value, tuple)
    if kind is bool or isinstance(value, bool):
        return kind is bool and isinstance(value, bool)
    if kind is float:
        return isinstance(value, int | float)
    return isinstance(value, kind)


METHODS = ("meta-lora", "lora")
SOURCES = ("crops", "whole", "square")  # of what a method learns
NONE = "none"  # the method of a benchmark that personalizes nothing: the base alone
PARTS = ("several-photos", "single-photo")  # of a benchmark
FEWEST_PEOPLE = 5  # for an interval: the bootstrap of fewer is absurdly wide, or has no width at all


@dataclass(frozen=True, kw_only=True)
class CropConfig:
    """How one photo becomes up to 25 training crops (paper, supplement: augmentation)."""

    resolution: int = option(
        1024, "training size: a crop becomes about resolution x resolution pixels", low=64, high=2048
    )
    max_upscale: float = option(
        4.0, "leave out a crop that would have to be enlarged more than this", low=1.0, high=16.0
    )
    tightest: float = option(
        1.5, "the tightest crop, in times the face; 1.5 is the paper's close-up, 4.5 leaves the widest crops", 1.0, 4.5
    )
    learn_from: str = option(
        "crops",
        "crops around the face in five shapes, as in the paper; the whole photo; or square crops alone",
        choices=SOURCES,
    )
    face: str = option("only", "which face, if there are several: 'only' (refuse), 'largest', or its number from 1")
    turn: str = option(
        "refuse",
        "a photo that is turned, by its face: refuse it, turn it (auto), or learn from it as it is (keep)",
        choices=("refuse", "auto", "keep"),
    )
    flips: bool = option(True, "train on mirrored crops too, each time by the toss of a coin")

    def __post_init__(self) -> None:
        check_options(self)
        if self.face not in ("only", "largest") and not (self.face.isdecimal() and int(self.face) >= 1):
            raise UserError(f"CropConfig: face must be 'only', 'largest' or a number from 1, got {self.face!r}.")


@dataclass(frozen=True, kw_only=True)
class PersonalizeConfig:
    """Stage 2 (paper, Algorithm 2): one photo to one LoRA. The defaults are the paper's for FLUX.1-dev."""

    method: str = option(
        "meta-lora",
        "meta-lora: heads on a frozen Meta-Down, where there is one; lora: a plain LoRA",
        choices=METHODS,
    )
    steps: int = option(375, "optimizer steps; the paper needs 375, a plain LoRA 625", low=1, high=100_000)
    learning_rate: float = option(4e-4, "AdamW learning rate, constant", low=0.0, high=1.0)
    weight_decay: float = option(0.01, "AdamW weight decay; torch's own default", low=0.0, high=1.0)
    rank: int = option(1, "r2, the rank of the finished LoRA", low=1, high=128)
    meta_rank: int = option(16, "r1, the rank of a random Meta-Down; a Meta-Down file brings its own", low=1, high=512)
    scale: float = option(1.0, "s, the strength of the adapter while training", low=0.0, high=100.0)
    batch: int = option(1, "crops of one aspect ratio in each step", low=1, high=64)
    sites: str = option("all", "which linear layers get an adapter: all of the transformer blocks, or attention only")
    class_name: str = option("person", "the class in captions: woman, man, cat, ...", flag="--class")
    trigger: str = option("", "an extra word in the caption that will call this person; none by default")
    caption: str = option("a photo of a {trigger}{class}", "caption template; {class} and {trigger} are filled in")
    time_sampling: str = option("logit-normal", "how training times are drawn", choices=("logit-normal", "uniform"))
    time_shift: float = option(
        1.0, "move training times: above 1 towards noise, below 1 towards detail; 1: as drawn", low=0.01, high=100.0
    )
    background_weight: float = option(
        1.0, "what the loss counts around the head, where the head counts 1; 0 learns the head alone", low=0.0, high=1.0
    )
    ema_steps: int = option(
        0, "write the weights' moving average over about the last so many steps; 0: the last step's", low=0
    )
    max_grad_norm: float = option(0.0, "clip the gradient's norm to this; 0 leaves it as it is", low=0.0)
    prior_weight: float = option(
        0.0, "DreamBooth's prior preservation: weight of the loss on images the base makes", low=0.0
    )
    prior_images: int = option(20, "images the base makes of the class for prior preservation", low=1, high=1000)
    gradient_checkpointing: str = option(
        "auto", "recompute activations to save memory: auto looks at what is free", choices=("auto", "on", "off")
    )
    save_every: int = option(50, "write a resumable state every so many steps", low=1)
    seed: int = option(0, "seed of the heads, noise, times and the order of crops", low=0, high=2**63 - 1)

    def __post_init__(self) -> None:
        check_options(self)
        _ = self.prompt  # a caption that cannot be filled in is found now, not after the photos are encoded

    @property
    def prompt(self) -> str:
        """The caption of every training crop."""
        if self.trigger and "{trigger}" not in self.caption:
            raise UserError(
                f"The caption {self.caption!r} has no {{trigger}}, so {self.trigger!r} would be lost: add it."
            )
        return self._filled_in(f"{self.trigger} " if self.trigger else "")

    @property
    def class_prompt(self) -> str:
        """The same without the trigger: what the base's own images of the class are called."""
        return self._filled_in("")

    def _filled_in(self, trigger: str) -> str:
        try:
            return fill_in(self.caption, {"class": self.class_name, "trigger": trigger})
        except ValueError as error:
            raise UserError(
                f"The caption {self.caption!r} cannot be filled in ({error}); it may hold {{class}} and {{trigger}}."
            ) from error


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """How images are made. The defaults are the paper's: 30 steps, guidance 3.5, true CFG 1, LoRA strength 1."""

    sampling_steps: int = option(30, "sampling steps", low=1, high=1000)
    guidance: float = option(3.5, "FLUX's distilled guidance", low=0.0, high=100.0)
    width: int = option(1024, "image width in pixels, a multiple of 16", low=64, high=4096)
    height: int = option(1024, "image height in pixels, a multiple of 16", low=64, high=4096)
    strength: float = option(1.0, "LoRA strength", low=-10.0, high=10.0)
    images_per_prompt: int = option(1, "images of each prompt, with seeds counting up", low=1, high=1000)
    seed: int = option(0, "seed of the first image's noise", low=0, high=2**63 - 1)

    def __post_init__(self) -> None:
        check_options(self)
        if self.width % 16 or self.height % 16:
            raise UserError(
                f"GenerateConfig: width and height must be multiples of 16, not {self.width} x {self.height}."
            )


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """What a benchmark compares, on whom, and how the work is cut."""

    methods: tuple[str, ...] = option((NONE, *METHODS), "what is compared: none is the base without a LoRA")
    step_counts: tuple[int, ...] = option((), "training steps; several come from one training", flag="--steps")
    ranks: tuple[int, ...] = option((), "ranks of the finished LoRAs")
    own_learning_rates: tuple[str, ...] = option(
        (), "METHOD=X: another learning rate for this method, such as lora=0.002", flag="--own-learning-rate"
    )
    sources: tuple[str, ...] = option((), f"each method learns from each of {', '.join(SOURCES)}", flag="--learn-from")
    seeds: tuple[int, ...] = option((0, 1), "an image of each prompt for each of these")
    parts: tuple[str, ...] = option(PARTS[:1], f"{PARTS[0]} (for R-FaceSim), {PARTS[1]} (for CLIP-T), or both")
    people: int = option(0, "only the first so many people, for a quick try; 0: all", low=0)
    prompts_each: int = option(0, "only the first so many prompts of each group; 0: all", low=0)
    leave_out: tuple[str, ...] = option((), "leave out prompts with these tags: age")
    together: int = option(4, "people of one class who are personalized at once", low=1, high=256)
    images_at_once: int = option(10, "images that are made at once", low=1, high=256)
    gallery: int = option(0, "look for a face among so many people, also of one photo; 0: those of several", low=0)
    threads: int = option(1, "CPU threads of each process: results depend on it in their last digits", low=1, high=1024)

    def __post_init__(self) -> None:
        check_options(self)
        problems = [
            f"{name!r} is no method: {', '.join((NONE, *METHODS))}"
            for name in self.methods
            if name not in (NONE, *METHODS)
        ]
        problems += [f"{name!r} is no part: {', '.join(PARTS)}" for name in self.parts if name not in PARTS]
        problems += [
            f"nothing is learned from {name!r}: {', '.join(SOURCES)}" for name in self.sources if name not in SOURCES
        ]
        problems += [f"steps and ranks must be at least 1, got {n}" for n in self.step_counts + self.ranks if n < 1]
        for name in ("methods", "step_counts", "ranks", "sources", "seeds", "parts"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                problems.append(f"{name} has something twice: {' '.join(map(str, values))}")
            if not values and name not in ("step_counts", "ranks", "sources"):
                problems.append(f"{name} is empty")
        problems += [problem for text in self.own_learning_rates if (problem := self._problem_of_rate(text))]
        if problems:
            raise UserError(f"BenchmarkConfig: {'; '.join(problems)}.")

    def learning_rates(self) -> dict[str, float]:
        """Those of methods that have their own."""
        pairs = (text.partition("=") for text in self.own_learning_rates)
        return {method: float(rate) for method, _, rate in pairs}

    def _problem_of_rate(self, text: str) -> str | None:
        method, _, rate = text.partition("=")
        trained = [name for name in self.methods if name in METHODS]
        if method not in trained:
            return f"own_learning_rates has {text!r}: METHOD=X, the METHOD one that trains here: {', '.join(trained)}"
        if sum(other.startswith(f"{method}=") for other in self.own_learning_rates) > 1:
            return f"own_learning_rates has {method} twice"
        try:
            PersonalizeConfig(learning_rate=float(rate))
        except (ValueError, UserError) as error:
            return f"own_learning_rates has {text!r}: {error}"
        return None


@dataclass(frozen=True)
class Step:
    """One optimizer step, or one sampling step: what a progress bar needs."""

    index: int  # counts from 1
    total: int
    loss: float | None = None


@dataclass(frozen=True)
class Phase:
    """What a job is doing now, in words: shown between progress bars."""

    text: str
