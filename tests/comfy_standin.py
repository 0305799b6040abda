"""A strict stand-in for `comfy_api.latest` where there is no ComfyUI: it knows what our nodes use, and nothing else.

An argument that the real classes do not take is a TypeError here too. What a schema becomes is compared with what the
real one was recorded to become, so this file cannot drift from it unseen.
"""

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

ROOT = Path(__file__).parents[1]
PACK = "metalora_standin"


class Input:
    """One input; `options` are what the page is told."""

    def __init__(self, kind: str, id: str, optional: bool, tooltip: str | None, **options: Any):
        self.kind, self.id, self.optional, self.tooltip = kind, id, optional, tooltip
        self.options = {key: value for key, value in options.items() if value is not None}


class Output:
    def __init__(self, kind: str, display_name: str | None, tooltip: str | None, is_output_list: bool):
        self.kind, self.name, self.is_list, self.tooltip = kind, display_name or kind, is_output_list, tooltip


class Socket:
    """A type that is only wired."""

    def __init__(self, kind: str):
        self.kind = kind

    def Input(self, id: str, *, optional: bool = False, tooltip: str | None = None) -> Input:
        return Input(self.kind, id, optional, tooltip=tooltip)

    def Output(
        self, *, display_name: str | None = None, tooltip: str | None = None, is_output_list: bool = False
    ) -> Output:
        return Output(self.kind, display_name, tooltip, is_output_list)


class Int(Socket):
    def Input(
        self, id, *, default, tooltip=None, optional=False, min=None, max=None, control_after_generate=None
    ) -> Input:
        options = {"default": default, "min": min, "max": max, "control_after_generate": control_after_generate}
        return Input("INT", id, optional, tooltip=tooltip, **options)


class Float(Socket):
    def Input(self, id, *, default, tooltip=None, optional=False, min=None, max=None, step=None, round=None) -> Input:
        shown = {"default": default, "min": min, "max": max, "step": step, "round": round}
        return Input("FLOAT", id, optional, tooltip=tooltip, **shown)


class Boolean(Socket):
    def Input(self, id, *, default, tooltip=None, optional=False) -> Input:
        return Input("BOOLEAN", id, optional, tooltip=tooltip, default=default)


class String(Socket):
    def Input(self, id, *, default, tooltip=None, optional=False, multiline=False, force_input=None) -> Input:
        shown = {"default": default, "multiline": multiline, "forceInput": force_input}
        return Input("STRING", id, optional, tooltip=tooltip, **shown)


class Combo(Socket):
    def Input(self, id, *, options, tooltip=None, default=None, optional=False) -> Input:
        assert default is None or default in options, (id, default)
        return Input("COMBO", id, optional, tooltip=tooltip, default=default, multiselect=False, options=list(options))


class Schema:
    def __init__(
        self,
        *,
        node_id,
        display_name,
        category,
        description,
        inputs,
        outputs,
        is_input_list=False,
        is_output_node=False,
    ):
        self.node_id, self.inputs, self.outputs = node_id, inputs, outputs
        assert display_name
        assert category
        assert description
        assert all(one.tooltip for one in (*inputs, *outputs)), "every input and every output explains itself"
        ids = [entry.id for entry in inputs]
        assert len(set(ids)) == len(ids)

    def recorded(self) -> dict[str, Any]:
        """As tests/record_nodes.py records it."""
        parts: dict[str, dict[str, Any]] = {"required": {}, "optional": {}}
        for entry in self.inputs:
            parts["optional" if entry.optional else "required"][entry.id] = [entry.kind, entry.options]
        return {
            "input": parts,
            "output": [output.kind for output in self.outputs],
            "output_name": [output.name for output in self.outputs],
            "output_is_list": [output.is_list for output in self.outputs],
        }


def latest() -> ModuleType:
    """The module."""
    io = SimpleNamespace(
        Schema=Schema,
        ComfyNode=type("ComfyNode", (), {}),
        NodeOutput=type("NodeOutput", (), {}),
        Custom=Socket,
        Int=Int("INT"),
        Float=Float("FLOAT"),
        Boolean=Boolean("BOOLEAN"),
        String=String("STRING"),
        Combo=Combo("COMBO"),
    )
    for name in ("Model", "Clip", "Vae", "Image", "Mask", "BBOX"):
        setattr(io, name, Socket(name.upper()))
    io.LoraModel, io.LossMap = Socket("LORA_MODEL"), Socket("LOSS_MAP")
    module = ModuleType("comfy_api.latest")
    module.__dict__.update(io=io, ui=SimpleNamespace(), ComfyExtension=type("ComfyExtension", (), {}))
    return module


@contextmanager
def pack_on_the_standin() -> Iterator[ModuleType]:
    """The pack's `nodes`, imported on the stand-in and without its bridge; forgotten again on leaving."""
    spec = importlib.util.spec_from_file_location(PACK, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    bridge = ModuleType(f"{PACK}.nodes.bridge")
    for name in ("devices", "execution", "folders", "models", "sites", "small", "training"):
        setattr(bridge, name, SimpleNamespace())
    bridge.folders.meta_down_files = bridge.folders.adapter_files = list
    taken = {"comfy_api": ModuleType("comfy_api"), "comfy_api.latest": latest(), bridge.__name__: bridge}
    taken[PACK] = importlib.util.module_from_spec(spec)
    before = {name: sys.modules.get(name) for name in taken}
    sys.modules.update(taken)
    try:
        yield importlib.import_module(f"{PACK}.nodes")
    finally:
        for name in [name for name in sys.modules if name.startswith(PACK)]:
            del sys.modules[name]
        for name, module in before.items():
            if module is not None:
                sys.modules[name] = module
            else:
                sys.modules.pop(name, None)
