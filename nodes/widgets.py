"""Widgets made from the options of a config: a default, a range and a help text are written in one place."""

import dataclasses
from typing import Any

from comfy_api.latest import io

STEPS = {"learning_rate": 1e-5, "weight_decay": 0.001}  # of a click on the arrow; the others 0.1


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
