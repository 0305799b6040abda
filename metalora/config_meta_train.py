"""Every setting of stage 1, and its presets."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .config import UserError, check_options, filled_in, option

OBJECTIVES = ("across-photos", "paper")


@dataclass(frozen=True, kw_only=True)
class MetaTrainConfig:
    """Stage 1: many people to one Meta-Down. The defaults are for FLUX.1-dev, where nobody has measured them yet."""

    objective: str = option(
        "across-photos",
        "across-photos: heads from one photo's face, judged on another photo of the person; paper: Algorithm 1",
        choices=OBJECTIVES,
        common=True,
    )
    generator_rate: float = option(1e-3, "AdamW learning rate of the head generator", low=0.0, high=1.0)
    faces: str = option("sface", "what embeds faces: sface, facenet, facenet:FILE or arcface")
    phrase_dropout: float = option(
        0.15, "leave each phrase of a caption, between its commas, out so often; the first stays", low=0.0, high=1.0
    )
    identity_words: str = option(
        "hair bald beard stubble moustache shaven",
        "phrases with one of these words say what the face shows: they are left out more often",
    )
    identity_dropout: float = option(0.7, "how often such a phrase is left out", low=0.0, high=1.0)
    caption_variants: int = option(4, "shortened forms of each caption that are encoded", low=1, high=64)
    steps: int = option(20_000, "iterations in all (q_total)", low=1, high=10_000_000, common=True)
    batch: int = option(16, "photos in each iteration, over all processes together", low=1, high=4096, common=True)
    learning_rate: float = option(
        4e-4, "AdamW learning rate; of Meta-Down and shared up, or of all", low=0.0, high=1.0, common=True
    )
    bucket_steps: int = option(2_500, "paper: iterations of each bucket of people (q_bucket)", low=1)
    warmup_steps: int = option(
        1_000, "paper: first iterations of a bucket, in which only heads move (q_warm-up)", low=0
    )
    bucket_people: int = option(50, "paper: people in a bucket, at most", low=1)
    weight_decay: float = option(0.01, "paper: AdamW weight decay; torch's own default", low=0.0, high=1.0)
    rank: int = option(1, "paper: r2, the rank of the heads", low=1, high=128)
    meta_rank: int = option(16, "r1, the rank of the Meta-Down", low=1, high=512, common=True)
    scale: float = option(1.0, "paper: s, the strength of the adapters while training", low=0.0, high=100.0)
    sites: str = option("all", "which linear layers get an adapter: all of the transformer blocks, or attention only")
    class_name: str = option(
        "person", "train on people of this class; 'all' takes every class at once", flag="--class", common=True
    )
    limit_people: int = option(0, "train on only so many people, drawn by chance; 0: on all", low=0)
    caption: str = option("a photo of a {class}", "caption of photos without one of their own; {class} is filled in")
    resolution: int = option(
        1024, "a photo becomes about resolution x resolution pixels", low=64, high=2048, common=True
    )
    max_upscale: float = option(2.0, "refuse photos that would have to be enlarged more than this", low=1.0, high=16.0)
    flips: bool = option(False, "paper: train on mirrored photos too, each time by the toss of a coin")
    time_sampling: str = option("logit-normal", "how training times are drawn", choices=("logit-normal", "uniform"))
    time_shift: float = option(
        1.0, "move training times: above 1 towards noise, below 1 towards detail; 1: as drawn", low=0.01, high=100.0
    )
    background_weight: float = option(
        0.1,
        "what the loss counts around the head, where the head counts 1; 1, as in the paper: the same",
        low=0.0,
        high=1.0,
        common=True,
    )
    gradient_checkpointing: bool = option(False, "recompute activations to save memory", common=True)
    save_every: int = option(500, "write a checkpoint, and validate, every so many steps", low=1)
    keep: int = option(3, "checkpoints to keep; older ones are deleted", low=1)
    validation_people: int = option(8, "people kept out of training, on whom it is tried", low=0, common=True)
    validation_steps: int = option(40, "paper: steps of stage 2 that each of them gets, on their first photo", low=1)
    seed: int = option(0, "seed of Meta-Down, heads, buckets, noise and times", low=0, high=2**63 - 1, common=True)

    def __post_init__(self) -> None:
        check_options(self)
        if self.warmup_steps >= self.bucket_steps:
            raise UserError(
                f"MetaTrainConfig: warmup_steps {self.warmup_steps} must be less than bucket_steps "
                f"{self.bucket_steps}, or the Meta-Down would never move. The paper's share is 0.4."
            )
        if self.flips and self.objective == "across-photos":
            raise UserError(
                "MetaTrainConfig: flips is for objective paper; a mirrored face is not the person's, and across photos "
                "there are others to learn from."
            )
        if self.rank > self.meta_rank:
            raise UserError(f"MetaTrainConfig: rank (r2) {self.rank} is larger than meta_rank (r1) {self.meta_rank}.")
        self.caption_of("person")  # found now if it cannot be filled in

    def caption_of(self, class_name: str) -> str:
        """What a photo is called that has no caption of its own."""
        return filled_in(self.caption, {"class": class_name})


META_PRESETS: dict[str, dict[str, Any]] = {
    "flux": {},
    "miniature": {
        "steps": 6_000,
        "learning_rate": 2e-3,
        "resolution": 128,
        "max_upscale": 4.0,
        "validation_people": 40,
    },
    # Algorithm 1 with the paper's settings for FLUX.1-dev.
    "paper": {
        "objective": "paper",
        "steps": 50_000,
        "batch": 4,
        "flips": True,
        "background_weight": 1.0,
        "validation_people": 4,
    },
}


def preset_of(base: str, objective: str | None) -> str:
    """Where settings start: by the objective, and by the base's name."""
    if objective == "paper":
        return "paper"
    return "miniature" if base in ("tiny", "miniature") else "flux"


def meta_train_config(preset: str, given: Mapping[str, Any]) -> MetaTrainConfig:
    """The config of those of the given settings that it has, over the preset, over the defaults."""
    names = {option_field.name for option_field in dataclasses.fields(MetaTrainConfig)}
    return MetaTrainConfig(**META_PRESETS[preset] | {name: value for name, value in given.items() if name in names})
