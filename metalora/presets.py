"""What a backbone, and a method on it, wants that differs from the defaults in config.py."""

import dataclasses
from typing import Any, TypeVar

from .config import METHODS, BenchmarkConfig, CropConfig, GenerateConfig, PersonalizeConfig

# A backbone's own defaults, where they differ from the paper's for FLUX.1-dev.
PRESETS: dict[str, dict[str, int | float | str | bool]] = {
    # After 150 steps the gain holds over two noises (docs/reproduction.md). Its photos are close portraits: no crops.
    "miniature": {
        "resolution": 128,
        "width": 128,
        "height": 128,
        "sampling_steps": 24,
        "guidance": 3.0,
        "steps": 150,
        "learning_rate": 2e-3,
        "rank": 16,
        "time_shift": 0.5,
        "background_weight": 0.1,
        "learn_from": "whole",
        "flips": False,
    },
    # The random test network: it learns nothing worth seeing, but every path runs in seconds.
    "tiny": {"resolution": 128, "width": 128, "height": 128, "sampling_steps": 8, "learning_rate": 3e-3, "steps": 60},
}


Config = TypeVar("Config", CropConfig, PersonalizeConfig, GenerateConfig, BenchmarkConfig)


# What a method wants that is not the default one, by backbone; "" is any other. A plain LoRA takes 625 steps (paper).
METHOD_PRESETS: dict[str, dict[str, dict[str, int | float | str]]] = {
    "": {"lora": {"steps": 625}},
    "miniature": {"lora": {"steps": 120, "learning_rate": 1e-3}},
    "tiny": {},
}


def method_preset(backbone: str, method: str) -> dict[str, int | float | str]:
    """A method's own settings on a backbone, over the backbone's."""
    return METHOD_PRESETS.get(backbone, METHOD_PRESETS[""]).get(method, {})


def with_preset(kind: type[Config], backbone: str, **given: Any) -> Config:
    """The config of what was given, over the method's preset, over the backbone's, over the defaults."""
    names = {option_field.name for option_field in dataclasses.fields(kind)}
    method = given.get("method", METHODS[0]) if "method" in names else ""
    presets = {**PRESETS.get(backbone, {}), **method_preset(backbone, method)}
    return kind(**{**{name: value for name, value in presets.items() if name in names}, **given})
