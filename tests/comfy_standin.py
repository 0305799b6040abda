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


class Widget(Socket):
    """A type whose value is typed into the node; `options` are what its inputs may have."""

    def __init__(self, kind: str, *options: str):
        super().__init__(kind)
        self.options = {"default", *options}

    def Input(self, id: str, *, tooltip: str | None = None, optional: bool = False, **options: Any) -> Input:
        if strange := options.keys() - self.options:
            raise TypeError(f"{self.kind} takes no {', '.join(sorted(strange))}")
        shown: dict[str, Any] = {"multiline": False} if self.kind == "STRING" else {}
        shown |= {"forceInput" if key == "force_input" else key: value for key, value in options.items()}
        if self.kind == "COMBO":
            assert options.get("default") in (None, *options["options"]), (id, options["default"])
            shown |= {"multiselect": False, "options": list(options["options"])}
        else:
            assert "default" in options, id
        return Input(self.kind, id, optional, tooltip=tooltip, **shown)


class Schema:
    def __init__(
        self, *, node_id, display_name, category, description, inputs, outputs, is_input_list=0, is_output_node=0
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
        Int=Widget("INT", "min", "max", "control_after_generate"),
        Float=Widget("FLOAT", "min", "max", "step", "round"),
        Boolean=Widget("BOOLEAN"),
        String=Widget("STRING", "multiline", "force_input"),
        Combo=Widget("COMBO", "options"),
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
