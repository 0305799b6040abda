"""The strength of a LoRA that is declared beside its matrices, as diffusers and PEFT write and read it.

diffusers and SimpleTuner put PEFT's configuration into the file's own metadata, PEFT into adapter_config.json. A
layer's scale is alpha / r, or alpha / sqrt(r) with use_rslora; `alpha_pattern` and `rank_pattern` override both by the
layer's name, by PEFT's rule: a pattern is a regular expression that must match the name's end.
"""

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..config import UserError

METADATA_KEY = "lora_adapter_metadata"  # diffusers' LORA_ADAPTER_METADATA_KEY
CONFIG_FILE = "adapter_config.json"
DEFAULT = 8  # PEFT's own r and alpha
REPEATED = re.compile(r"[*+?{]")


@dataclass(frozen=True)
class Declared:
    """What a configuration says of the scales of layers."""

    r: float | None
    alpha: float
    rank_pattern: dict[str, float] = field(default_factory=dict)
    alpha_pattern: dict[str, float] = field(default_factory=dict)
    rslora: bool = False
    dora: bool = False

    def scale(self, layer: str, rank: int, own_rank: bool) -> float:
        """Of a layer whose matrices have this rank; `own_rank`: the declared rank must be that, as in a LoRA."""
        r = matching(self.rank_pattern, layer, self.r)
        if r is None:
            r = rank
        if own_rank and r != rank:
            raise UserError(f"its configuration says rank {r:g} for {layer}, whose matrices have rank {rank}")
        return matching(self.alpha_pattern, layer, self.alpha) / (math.sqrt(r) if self.rslora else r)


def matching(patterns: dict[str, float], layer: str, otherwise: Any) -> Any:
    """The value of the first pattern that matches, as PEFT's get_pattern_key finds it."""
    return next((value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", layer)), otherwise)


def declared_in(metadata: dict[str, str], config_json: str | None) -> Declared | None:
    """From the file's metadata, else from the text of an adapter_config.json; a UserError if it makes no sense."""
    if METADATA_KEY in metadata:
        config = parsed(metadata[METADATA_KEY], METADATA_KEY)
        prefix = "transformer."
        if not config.keys() & {"r", "lora_alpha"}:  # a pipeline's; a model's own save_lora_adapter writes no prefix
            config = {key.removeprefix(prefix): value for key, value in config.items() if key.startswith(prefix)}
        return declared(config, METADATA_KEY) if config else None
    return None if config_json is None else declared(parsed(config_json, CONFIG_FILE), CONFIG_FILE)


def parsed(text: str, source: str) -> dict[str, Any]:
    """A JSON object."""
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"its {source} is not JSON, so the LoRA's strength is unknown") from error
    if not isinstance(config, dict):
        raise UserError(f"its {source} is not a JSON object, so the LoRA's strength is unknown")
    return config


def declared(config: dict[str, Any], source: str) -> Declared:
    """A checked configuration; in PEFT's LoKr and LoHa, alpha is called alpha."""
    checked = checker(source)
    r = config.get("r")
    return Declared(
        r=None if r is None else checked("r", r, positive=True),
        alpha=checked("lora_alpha", config.get("lora_alpha", config.get("alpha", DEFAULT))),
        rank_pattern=patterns(config.get("rank_pattern"), "rank_pattern", checked, positive=True),
        alpha_pattern=patterns(config.get("alpha_pattern"), "alpha_pattern", checked),
        rslora=config.get("use_rslora") is True,
        dora=config.get("use_dora") is True,
    )


def checker(source: str) -> Callable[..., float]:
    """A function that takes a name and a value of the configuration, and returns a finite number."""

    def checked(name: str, value: Any, positive: bool = False) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e9:
            raise UserError(f"its {source} has {name} {str(value)[:40]!r}, which is no number of use")
        if positive and value < 1:
            raise UserError(f"its {source} has {name} {value}, expected 1 or more")
        return float(value)

    return checked


def patterns(given: Any, name: str, checked: Callable[..., float], positive: bool = False) -> dict[str, float]:
    """Regular expression -> number. Repeated groups are refused: their matching may never end."""
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise UserError(f"its {name} is {str(given)[:40]!r}, expected layers' names with numbers")
    for pattern in given:
        try:
            re.compile(pattern)
        except (re.error, RecursionError, OverflowError) as error:
            raise UserError(f"its {name} has {pattern[:60]!r}, which is no regular expression") from error
        if len(pattern) > 300 or len(REPEATED.findall(pattern)) > 3 or re.search(r"\)[*+?{]", pattern):
            raise UserError(f"its {name} has {pattern[:60]!r}, which is too involved to be a layer's name")
    return {pattern: checked(name, value, positive) for pattern, value in given.items()}
