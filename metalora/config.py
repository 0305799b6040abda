"""Every setting of a job, declared once: its default, its range and its help.

The command line makes its flags from these dataclasses and the nodes make their widgets from them, so a range or a
help text is written in exactly one place. `UserError` lives here because every room of the package may raise it.
"""

import dataclasses
import re
import string
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
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
    common: bool = False,
    bare: Any = None,
) -> Any:
    """A dataclass field that carries its help text, its inclusive range or choices, and its flag if not its name.

    `common` ones are in the short help; `bare` is what the flag means without a value.
    """
    metadata = {"help": help, "low": low, "high": high, "choices": choices, "flag": flag} | {"common": common}
    return field(default=default, metadata=metadata | {"bare": bare})


def is_text(value: str | Path) -> bool:
    """Whether it can be written to a file, or name one: no zero, and UTF-8 but for a path."""
    wrong = "[\0\ud800-\udc7f\udd00-\udfff]" if isinstance(value, Path) else "[\0\ud800-\udfff]"
    return not re.search(wrong, str(value))


def filled_in(caption: str, words: Mapping[str, str]) -> str:
    """A caption with its words; a UserError where it has braces that are none of them."""
    try:
        return fill_in(caption, words)
    except ValueError as error:
        names = " and ".join(f"{{{name}}}" for name in words)
        raise UserError(f"The caption {caption!r} cannot be filled in ({error}); it may hold {names}.") from error


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
    options = [one for one in dataclasses.fields(config) if "help" in one.metadata]
    problems = [problem for one in options if (problem := _problem(one, getattr(config, one.name)))]
    if problems:
        raise UserError(f"{type(config).__name__}: " + "; ".join(problems) + ".")


def _problem(option_field: dataclasses.Field, value: Any) -> str | None:
    low, high, choices = (option_field.metadata.get(key) for key in ("low", "high", "choices"))
    name, kind = option_field.name, option_field.type
    if not _fits(value, kind):
        wanted = kind if typing.get_args(kind) else getattr(kind, "__name__", kind)
        return f"{name} must be {wanted}, got {value!r}"
    for one in value if isinstance(value, tuple) else () if value is None else (value,):
        if isinstance(one, str | Path) and not is_text(one):
            return f"{name} is no text (UTF-8 is needed, without a zero), got {str(one)!r}"
        if choices and one not in choices:
            return f"{name} must be one of {', '.join(choices)}, got {one!r}"
        if isinstance(one, float) and not abs(one) < float("inf"):
            return f"{name} must be a finite number, got {one}"
        if low is not None and one < low:
            return f"{name} must be at least {low}, got {one}"
        if high is not None and one > high:
            return f"{name} must be at most {high}, got {one}"
    return None


def _fits(value: Any, kind: Any) -> bool:
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        return any(_fits(value, member) for member in typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_fits(one, typing.get_args(kind)[0]) for one in value)
    if kind is bool or isinstance(value, bool):
        return kind is bool and isinstance(value, bool)
    if kind is float:
        return isinstance(value, int | float)
    return isinstance(value, kind)


DEFAULT_BACKBONE = "miniature"
SINGLE_FILES = ("transformer", "vae", "text_encoder", "clip_l", "t5xxl", "tokenizers")
METHODS = ("meta-lora", "lora")
LR_SCHEDULERS = ("constant", "cosine", "linear")
OPTIMIZERS = ("adamw", "adamw-8bit", "prodigy")
SOURCES = ("crops", "whole", "square")  # of what a method learns
NONE = "none"  # the method of a benchmark that personalizes nothing: the base alone
FEWEST_PEOPLE = 5  # for an interval: the bootstrap of fewer is absurdly wide, or has no width at all


@dataclass(frozen=True, kw_only=True)
class BaseConfig:
    """Which base model, and where it runs."""

    backbone: str | None = option(
        None,
        "miniature (default), klein-4b, z-image, flux-dev, ... (docs/bases.md), or a hub name",
        common=True,
    )
    transformer: Path | str | None = option(None, "its transformer as ComfyUI has it, one .safetensors in bf16 or fp8")
    vae: Path | str | None = option(None, "its autoencoder as one file")
    text_encoder: Path | str | None = option(None, "its text encoder as one file; of FLUX.1:")
    clip_l: Path | str | None = option(None, "clip_l.safetensors")
    t5xxl: Path | str | None = option(None, "t5xxl_fp16.safetensors or an fp8 variant")
    tokenizers: Path | str | None = option(None, "a folder with its tokenizers; for FLUX.1, a ComfyUI folder will do")
    device: str = option("auto", "auto, cpu, cuda, cuda:1, mps")
    precision: str = option("auto", "of the base", choices=("auto", "bf16", "fp32"))
    cache: Path | str | None = option(None, "folder for latents and prompts (default: METALORA_CACHE)")

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def single_files(self) -> dict[str, Path]:
        """Those given, by part."""
        return {name: Path(path) for name in SINGLE_FILES if (path := getattr(self, name)) is not None}

    @property
    def defaults_of(self) -> str:
        """Whose defaults apply: single files are FLUX.1's, so the paper's, where no base is named."""
        return ("flux-dev" if self.single_files else DEFAULT_BACKBONE) if self.backbone is None else self.backbone


@dataclass(frozen=True, kw_only=True)
class SpeedConfig:
    """How the base is run; docs/speed.md says what was measured of it."""

    compile: bool = option(False, "compile its blocks: slow at first, then faster steps")
    attention: str = option("auto", "auto, cudnn, flash-3, flash, efficient or math")
    eight_bit: bool = option(False, "int8 weights: half of bf16's memory, nearly the same")
    four_bit: bool = option(False, "NF4 weights: a third of bf16's memory, less exact")
    swap_blocks: int = option(0, "keep so many blocks in main memory, each fetched in its turn", low=0)

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True, kw_only=True)
class CropConfig:
    """How one photo becomes up to 25 training crops (paper, supplement: augmentation)."""

    resolution: int = option(1024, "training size: a crop becomes about N x N pixels", low=64, high=2048, common=True)
    max_upscale: float = option(4.0, "leave out a crop that would be enlarged more than this", low=1.0, high=16.0)
    tightest: float = option(
        1.5, "the tightest crop, in times the face; 1.5 is the paper's close-up, 4.5 leaves the widest crops", 1.0, 4.5
    )
    learn_from: str = option(
        "crops",
        "crops around the face in five shapes, the whole photo, or square crops",
        choices=SOURCES,
        common=True,
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
        if self.face not in ("only", "largest") and not re.fullmatch("[1-9][0-9]{0,3}", self.face):
            raise UserError(f"CropConfig: face must be 'only', 'largest' or a number from 1, got {self.face!r}.")


@dataclass(frozen=True, kw_only=True)
class PersonalizeConfig:
    """Stage 2 (paper, Algorithm 2): one photo to one LoRA. The defaults are the paper's for FLUX.1-dev."""

    method: str = option(
        "meta-lora",
        "heads on a frozen Meta-Down, where there is one; or a plain LoRA",
        choices=METHODS,
        common=True,
    )
    steps: int = option(375, "optimizer steps; the paper needs 375, a plain LoRA 625", low=1, high=100_000, common=True)
    learning_rate: float = option(4e-4, "learning rate; 1 for prodigy", low=0.0, high=1.0, common=True)
    optimizer: str = option("adamw", "AdamW, with moments of 8 bits, or Prodigy", choices=OPTIMIZERS)
    lr_scheduler: str = option("constant", "the rate over the steps, as in diffusers", choices=LR_SCHEDULERS)
    lr_warmup_steps: int = option(0, "steps over which the rate rises from 0", low=0)
    weight_decay: float = option(0.01, "weight decay; torch's own default for AdamW", low=0.0, high=1.0)
    rank: int = option(1, "r2, the rank of the finished LoRA", low=1, high=128, common=True)
    meta_rank: int = option(16, "r1, the rank of a random Meta-Down; a Meta-Down file brings its own", low=1, high=512)
    scale: float = option(1.0, "s, the strength of the adapter while training", low=0.0, high=100.0)
    batch: int = option(1, "crops of one aspect ratio in each step", low=1, high=64)
    sites: str = option("all", "which linear layers get an adapter: all of the transformer blocks, or attention only")
    class_name: str = option("person", "the class in captions: woman, man, cat, ...", flag="--class", common=True)
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
    prior_weight: float = option(0.0, "prior preservation: weight of the loss on images the base makes", low=0.0)
    prior_images: int = option(20, "images the base makes of the class for prior preservation", low=1, high=1000)
    gradient_checkpointing: str = option("auto", "recompute to save memory: auto looks", choices=("auto", "on", "off"))
    save_every: int = option(50, "write a resumable state every so many steps", low=1)
    lora_every: int = option(0, "also write the LoRA every so many steps; 0: the finished one alone", low=0)
    loras_kept: int = option(0, "of those, keep the last so many; 0: all", low=0)
    seed: int = option(0, "seed of the heads, noise, times and the order of crops", low=0, high=2**63 - 1, common=True)

    def __post_init__(self) -> None:
        check_options(self)
        _ = self.prompt  # a caption that cannot be filled in is found now, not after the photos are encoded
        if self.optimizer == "prodigy" and self.learning_rate < 0.1:
            raise UserError(f"prodigy multiplies its own rate by --learning-rate, {self.learning_rate:g}: set it to 1.")
        if self.lr_warmup_steps >= self.steps:
            raise UserError(f"--lr-warmup-steps is {self.lr_warmup_steps}, but --steps is {self.steps}: use fewer.")

    @property
    def prompt(self) -> str:
        """The caption of every training crop."""
        if self.trigger and "{trigger}" not in self.caption:
            raise UserError(
                f"The caption {self.caption!r} has no {{trigger}}, so {self.trigger!r} would be lost: add it."
            )
        return filled_in(self.caption, {"class": self.class_name, "trigger": self.trigger and f"{self.trigger} "})

    @property
    def class_prompt(self) -> str:
        """The same without the trigger: what the base's own images of the class are called."""
        return filled_in(self.caption, {"class": self.class_name, "trigger": ""})


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """How images are made. The defaults are the paper's: 30 steps, guidance 3.5, true CFG 1, LoRA strength 1."""

    sampling_steps: int = option(30, "sampling steps", low=1, high=1000, common=True)
    guidance: float = option(3.5, "FLUX's distilled guidance", low=0.0, high=100.0, common=True)
    width: int = option(1024, "image width in pixels, a multiple of 16", low=64, high=4096, common=True)
    height: int = option(1024, "image height in pixels, a multiple of 16", low=64, high=4096, common=True)
    strength: float = option(1.0, "LoRA strength", low=-10.0, high=10.0, common=True)
    images_per_prompt: int = option(1, "images of each prompt, with seeds counting up", low=1, high=1000, common=True)
    seed: int = option(0, "seed of the first image's noise", low=0, high=2**63 - 1, common=True)

    def __post_init__(self) -> None:
        check_options(self)
        if self.width % 16 or self.height % 16:
            raise UserError(
                f"GenerateConfig: width and height must be multiples of 16, not {self.width} x {self.height}."
            )


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
