"""What schemas are made of: our socket types, and widgets made from the options of a config.

A default, a range and a help text are written in one place, the config. All other types are ComfyUI's own.
"""

import dataclasses
import inspect
from typing import Any

from comfy_api.latest import io

CATEGORY = "Meta-LoRA"
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


def seldom(name: str) -> dict[str, bool]:
    """The argument that hides a widget, where this ComfyUI knows it: 0.3.64 does not."""
    known = "advanced" in inspect.signature(io.Int.Input).parameters
    return {"advanced": True} if known and name in ADVANCED else {}


def schema(*, search_aliases: list[str], **settings: Any) -> io.Schema:
    """A node's schema, with other words that its page finds it by where this ComfyUI knows such: 0.3.64 does not."""
    known = "search_aliases" in inspect.signature(io.Schema).parameters
    return io.Schema(**settings, **({"search_aliases": search_aliases} if known else {}))


def widgets(config: type, *names: str, optional: bool = False, **defaults: Any) -> list[Any]:
    """One input for each named option, in this order; `defaults` replace the option's own.

    Optional ones may be missing in a saved prompt: those that came later are, so that older prompts still run.
    """
    fields = {field.name: field for field in dataclasses.fields(config)}
    return [widget(fields[name], defaults.get(name, fields[name].default), optional=optional) for name in names]


def widget(
    field: dataclasses.Field, default: Any, choices: tuple[str, ...] | None = None, *, optional: bool = False
) -> Any:
    """The input of an option."""
    low, high = field.metadata["low"], field.metadata["high"]
    choices = choices or field.metadata["choices"]
    common = {"default": default, "tooltip": sentence(field.metadata["help"]), "optional": optional}
    common |= seldom(field.name)
    if choices:
        return io.Combo.Input(field.name, options=list(choices), **common)
    if field.type is bool:
        return io.Boolean.Input(field.name, **common)
    if field.type is int:
        return io.Int.Input(field.name, min=low, max=high, control_after_generate=field.name == "seed", **common)
    if field.type is float:
        return io.Float.Input(field.name, min=low, max=high, step=STEPS.get(field.name, 0.1), round=False, **common)
    return io.String.Input(field.name, **common)


def sentence(help_text: str) -> str:
    """A help text as a tooltip."""
    return help_text[0].upper() + help_text[1:] + ("" if help_text.endswith(".") else ".")
