"""Record the key lists of the full FLUX.1-dev: COMFYUI_PATH=/path/to/ComfyUI python tests/record_keys.py

diffusers' names come from its FluxTransformer2DModel, Black Forest Labs' from ComfyUI's model; neither has weights.
"""

import json
import os
import runpy
import sys
from pathlib import Path

import torch

OUT = Path(__file__).parent / "data" / "flux1_dev_keys.json"


def of_diffusers() -> dict[str, object]:
    import diffusers

    with torch.device("meta"):
        model = diffusers.FluxTransformer2DModel(guidance_embeds=True)
    return {"source": f"diffusers {diffusers.__version__} FluxTransformer2DModel", "keys": shapes(model)}


def of_comfyui(checkout: Path) -> dict[str, object]:
    sys.path.insert(0, str(checkout))
    import comfy.cli_args

    comfy.cli_args.args.cpu = True  # before the next import, which looks for a GPU
    import comfy.ops
    from comfy.ldm.flux.model import Flux

    with torch.device("meta"):
        model = Flux(
            in_channels=16,
            out_channels=16,
            vec_in_dim=768,
            context_in_dim=4096,
            hidden_size=3072,
            mlp_ratio=4.0,
            num_heads=24,
            depth=19,
            depth_single_blocks=38,
            axes_dim=[16, 56, 56],
            theta=10000,
            patch_size=2,
            qkv_bias=True,
            guidance_embed=True,
            operations=comfy.ops.disable_weight_init,
        )
    version = runpy.run_path(str(checkout / "comfyui_version.py"))["__version__"]
    return {"source": f"ComfyUI {version} comfy.ldm.flux.model.Flux", "keys": shapes(model)}


def shapes(model: torch.nn.Module) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in model.state_dict().items()}


if __name__ == "__main__":
    recorded = {"diffusers": of_diffusers(), "bfl": of_comfyui(Path(os.environ["COMFYUI_PATH"]))}
    OUT.parent.mkdir(exist_ok=True)
    text = json.dumps(recorded)
    for key in ('"diffusers": {', '"bfl": {', '"keys": {', "], "):  # a name a line, so that a difference shows
        text = text.replace(key, key.rstrip() + "\n")
    OUT.write_text(text + "\n")
