"""What schemas are made of: our socket types, widgets made from the options of a config, and texts.

A default, a range and a help text are written in one place, the config. All other English texts of the nodes, their
titles, descriptions and tooltips, stand in locales/en/nodeDefs.json, which translators copy.
"""

import dataclasses
import inspect
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from comfy_api.latest import io

CATEGORY = "Meta-LoRA"
TEXTS = Path(__file__).parents[1] / "locales" / "en" / "nodeDefs.json"
STEPS = {"learning_rate": 1e-5, "weight_decay": 0.001}  # of a click on the arrow; the others 0.1

MetaDownSocket = io.Custom("META_DOWN")
AdapterSocket = io.Custom("META_LORA_ADAPTER")
BenchmarkSocket = io.Custom("META_LORA_BENCHMARK")  # the folder of a run


@dataclasses.dataclass(frozen=True)
class MetaDown:
    """What a META_DOWN wire carries: a file's path, or "random" for the untrained control."""

    source: str


# What few people change: the page hides these behind a button, where this ComfyUI can.
ADVANCED = {"sites", "batch", "time_sampling", "weight_decay", "max_grad_norm", "gradient_checkpointing", "flips"}
ADVANCED |= {"preview_every", "preview_cfg", "background_weight", "time_shift", "ema_steps", "max_upscale", "turn"}
ADVANCED |= {"optimizer", "lr_scheduler", "lr_warmup_steps", "lora_every", "loras_kept", "ratios", "scales", "finder"}


@cache
def texts() -> dict[str, Any]:
    """The English texts, by node."""
    return json.loads(TEXTS.read_text(encoding="utf-8"))


def schema(
    node_id: str,
    inputs: list[Any],
    outputs: list[Any],
    *,
    search_aliases: Sequence[str] = (),
    shown: Sequence[str] = (),
    **flags: bool,
) -> io.Schema:
    """A node's schema, with its texts.

    `search_aliases` are other words that the page finds the node by; widgets in `shown` are not hidden. ComfyUI 0.3.64
    knows neither these words nor hidden widgets, and goes without.
    """
    said, named = texts()[node_id], {"search_aliases": list(search_aliases)}
    for one in inputs:
        one.tooltip = one.tooltip or said["inputs"][one.id]["tooltip"]
        if one.id in ADVANCED.difference(shown) and "advanced" in vars(one):
            one.advanced = True
    for place, one in enumerate(outputs):
        one.tooltip = said["outputs"][str(place)]["tooltip"]
    return io.Schema(
        node_id=node_id,
        display_name=said["display_name"],
        category=CATEGORY,
        description=said["description"],
        inputs=inputs,
        outputs=outputs,
        **(named if "search_aliases" in inspect.signature(io.Schema).parameters else {}),
        **flags,
    )


def widgets(config: type, *names: str, optional: bool = False) -> list[Any]:
    """One input for each named option, in this order.

    Optional ones may be missing in a saved prompt: those that came later are, so that older prompts still run.
    """
    return [widget(config, name, optional=optional) for name in names]


def widget(config: Any, name: str, default: Any = None, choices: Sequence[str] = (), *, optional: bool = False) -> Any:
    """The input of an option, with another default or other choices than the option's own where some are given."""
    (field,) = (one for one in dataclasses.fields(config) if one.name == name)
    default = field.default if default is None else default
    low, high, choices = field.metadata["low"], field.metadata["high"], choices or field.metadata["choices"]
    common = {"default": default, "tooltip": sentence(field.metadata["help"]), "optional": optional}
    if choices:
        return io.Combo.Input(name, options=list(choices), **common)
    if field.type is bool:
        return io.Boolean.Input(name, **common)
    if field.type is int:
        return io.Int.Input(name, min=low, max=high, control_after_generate=name == "seed", **common)
    if field.type is float:
        return io.Float.Input(name, min=low, max=high, step=STEPS.get(name, 0.1), round=False, **common)
    return io.String.Input(name, **common)


def sentence(help_text: str) -> str:
    """A help text as a tooltip."""
    return help_text[0].upper() + help_text[1:] + ("" if help_text.endswith(".") else ".")
