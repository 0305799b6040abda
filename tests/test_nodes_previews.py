"""Previews use classifier-free guidance where the base was trained for it, and not where it was distilled away."""

import pytest
from comfy_families import Vae, build, clip, known, prompt
from comfyui import needs_comfyui, pack

pytestmark = [needs_comfyui, pytest.mark.slow]


@pytest.mark.parametrize(
    ("family", "file", "cfg"),
    [
        ("flux1", "flux1-schnell.safetensors", False),
        ("zimage", "z_image_bf16.safetensors", True),
        ("zimage", "z_image_turbo_bf16.safetensors", False),
        ("flux2", "flux-2-klein-base-4b.safetensors", True),
        ("flux2", "flux-2-klein-4b.safetensors", False),
        ("sdxl", None, True),
    ],
)
def test_previews_use_cfg_where_the_base_needs_it(family: str, file: str | None, cfg: bool):
    models, previews = pack("nodes.bridge.models"), pack("nodes.previews")
    if not known(family):
        pytest.skip(f"this ComfyUI has no {family}")
    model = build(family)
    if file:
        model.cached_patcher_init = (None, (f"/models/{file}", {}))  # as ComfyUI's loader leaves it
    assert models.needs_cfg(model) == cfg
    words = prompt(family)
    backbone = pack("nodes.backbone").ComfyBackbone(model, clip(family), Vae(model))
    assert (previews.ImagePreview(backbone, words, words, 64, 1, 1).negative is not None) == cfg
    assert previews.ImagePreview(backbone, words, words, 64, 1, 1, cfg=1.0).negative is None
