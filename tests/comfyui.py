"""The pack as ComfyUI loads it, under a name of its own, inside a real ComfyUI that COMFYUI_PATH names."""

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from metalora.backbones.pipeline import PipelineBackbone

ROOT = Path(__file__).parents[1]
PACK = "metalora_pack"
REASON = "COMFYUI_PATH names no ComfyUI checkout"
needs_comfyui = pytest.mark.skipif("COMFYUI_PATH" not in os.environ, reason=REASON)


def pack(name: str) -> ModuleType:
    """A module of the pack, such as "nodes.backbone". Its classes are not those that the tests import."""
    if PACK not in sys.modules:
        sys.path.insert(0, os.environ["COMFYUI_PATH"])
        import comfy.cli_args

        comfy.cli_args.args.cpu = True  # before the next import, which looks for a GPU
        spec = importlib.util.spec_from_file_location(
            PACK, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
        )
        module = importlib.util.module_from_spec(spec)
        sys.modules[PACK] = module
        spec.loader.exec_module(module)
    return importlib.import_module(f"{PACK}.{name}")


def small_parts(network: str) -> tuple:
    """(MODEL, CLIP, VAE) of tiny_flux.TinyFlux or pipeline_folder.Miniature, made as a loader node makes them."""
    module, name = network.split(".")
    with torch.inference_mode():
        read = vars(pack(f"metalora.backbones.{module}"))[name]()
        return pack("nodes.bridge.small").small_parts(read)


def headless(network: str) -> PipelineBackbone:
    """The same without ComfyUI."""
    module, name = network.split(".")
    read = vars(importlib.import_module(f"metalora.backbones.{module}"))[name]()
    return PipelineBackbone(read, torch.device("cpu"), torch.float32)
