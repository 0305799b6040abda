"""One base in ComfyUI and without it: a file of ComfyUI's own class gives the same velocity, gradient for gradient.

The weights are written as ComfyUI names them, which is how its users have them, and read through `SingleFiles`.
"""

import json
from pathlib import Path
from typing import Any

import comfy_families
import pytest
import torch
from comfy_families import TIMES, Vae, build, clip, prompt, skip_without
from comfy_files import write
from comfyui import needs_comfyui, pack
from tiny_bases import save_tiny_base
from torch import Tensor

from metalora.backbones.architecture import format_lora
from metalora.backbones.pipeline import PipelineBackbone
from metalora.backbones.protocol import Prompt
from metalora.backbones.single_files import SingleFiles
from metalora.config import PersonalizeConfig
from metalora.method.adapter import Adapters, fold_all, new_adapters
from metalora.method.flow import generator_of
from metalora.method.personalize import Person, TrainingImages, new_optimizer, personalize

pytestmark = [needs_comfyui, pytest.mark.slow]
NAMES = {**comfy_families.AS_HEADLESS, "zimage": "z-image"}
Z_IMAGE = {"dim": 1152, "n_heads": 9, "n_kv_heads": 9}  # below the real width the classes give the time another one


@pytest.fixture(params=NAMES)
def both(request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Any, PipelineBackbone]:
    """(family, ComfyUI's backbone, ours of the same weights)."""
    skip_without(request.param)
    family, changed = NAMES[request.param], {}
    if family == "z-image":
        kind, sizes = comfy_families.SIZES["zimage"]
        monkeypatch.setitem(comfy_families.SIZES, "zimage", (kind, sizes | Z_IMAGE))
        changed = Z_IMAGE | {"axes_dims": [32, 48, 48], "axes_lens": [1536, 512, 512]}
    model = build(request.param)
    path = write(model.model.diffusion_model.state_dict(), tmp_path / "base.safetensors", "model.diffusion_model.")
    folder = save_tiny_base(family, tmp_path / "base")
    config = json.loads((folder / "transformer" / "config.json").read_text())
    (folder / "transformer" / "config.json").write_text(json.dumps({**config, **changed}))
    theirs = pack("nodes.backbone").ComfyBackbone(model, clip(request.param), Vae(model))
    ours = PipelineBackbone(SingleFiles(folder, {"transformer": path}), torch.device("cpu"), torch.float32)
    return request.param, theirs, ours


def words(family: str) -> tuple[dict[str, Tensor], Prompt]:
    """One prompt as each program has it; of as many tokens as ComfyUI fills FLUX.2's up to."""
    given = prompt(family, tokens=512 if family == "flux2" else 6)
    tokens = given["cross_attn"]
    if family == "krea2":
        tokens = tokens.unflatten(-1, (3, 32))  # layers of the text encoder
    own = {"tokens": tokens} | ({"pooled": given["pooled_output"]} if "pooled_output" in given else {})
    return given, Prompt(own)


def clean(backbone: PipelineBackbone, count: int) -> Tensor:
    shape = backbone.family.latent_shape(backbone.parts.transformer_config, 128, 128)
    return torch.randn((count, *shape), generator=torch.Generator().manual_seed(5))


def adapters_of(backbone: Any, order: list[str], config: PersonalizeConfig) -> Adapters:
    """Drawn by name, in one order."""
    sites = {site.name: site for site in backbone.sites("all")}
    return new_adapters([sites[name] for name in order], config.rank, generator_of(config.seed, "heads"))


def test_the_velocity_is_the_same_and_so_is_the_lora_that_is_learned(both):
    family, theirs, ours = both
    given, own = words(family)
    latents = clean(ours, 2)
    with theirs.denoiser() as a, ours.denoiser() as b, torch.no_grad():
        a.checked = True
        expected = a(latents, TIMES, given)
        error = ((b(latents, TIMES, own) - expected).norm() / expected.norm()).item()
    shared = [site.name for site in ours.sites("all") if site.name in {other.name for other in theirs.sites("all")}]
    config = PersonalizeConfig(method="lora", steps=20, learning_rate=1e-2, batch=2)
    learned = []
    for backbone, words_of in ((theirs, given), (ours, own)):
        adapters = adapters_of(backbone, shared, config)
        person = Person(TrainingImages([one[None] for one in clean(ours, 3)], words_of), config.seed)
        with backbone.denoiser() as denoiser, adapters.attached(denoiser.network):
            for _ in personalize(denoiser, adapters, new_optimizer(adapters, config), [person], config):
                pass
        merged = fold_all(adapters)
        learned.append(torch.cat([(up @ down).flatten() for down, up in (merged[name] for name in shared)]))
    drift = ((learned[0] - learned[1]).norm() / learned[0].norm()).item()
    print(f"{family}: velocity {error:.1e}; {len(shared)} sites, LoRA after 20 steps {drift:.1e}")
    assert error < 1e-4
    assert len(shared) >= 0.8 * len(ours.sites("all"))
    assert drift < 1e-3


@torch.no_grad()
def test_a_lora_of_ours_is_the_same_through_comfyuis_stock_loader(both):
    family, theirs, ours = both
    given, own = words(family)
    latents, generator = clean(ours, 2), torch.Generator().manual_seed(3)
    adapters = new_adapters(ours.sites("all"), 1, generator)
    for one in adapters.by_name.values():
        one.up.data = 0.3 * torch.randn(one.up.shape, generator=generator)
    with ours.denoiser() as denoiser:
        plain = denoiser(latents, TIMES, own)
        with adapters.attached(denoiser.network):
            live = denoiser(latents, TIMES, own)
    lora, loras = format_lora(fold_all(adapters), "diffusers", ours.architecture), pack("nodes.bridge.models")
    assert loras.unmatched_keys(theirs.model, lora) == []
    dressed = loras.with_lora(theirs.model, lora)
    with pack("nodes.backbone").ComfyBackbone(dressed, clip(family), Vae(dressed)).denoiser() as denoiser:
        denoiser.checked = True
        error = ((denoiser(latents, TIMES, given) - live).norm() / (live - plain).norm()).item()
    print(f"{family}: {len(adapters.sites)} sites, stock loader {error:.1e} of the LoRA's effect")
    assert error < 1e-4


@torch.no_grad()
def test_qwens_autoencoder_is_the_same(tmp_path: Path):
    pack("nodes.bridge.models")
    from comfy.ldm.wan.vae import WanVAE

    theirs = WanVAE(dim=8, z_dim=16, temperal_downsample=[False, True, True]).eval()
    comfy_families.randomize(theirs)
    folder = save_tiny_base("qwen-image", tmp_path / "base")
    config = folder / "vae" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "num_res_blocks": 2}))
    path = write(theirs.state_dict(), tmp_path / "qwen_image_vae.safetensors")
    ours = SingleFiles(folder, {"vae": path}).autoencoder("cpu", torch.float32)
    image = torch.linspace(-1, 1, 3 * 32 * 32).view(1, 3, 1, 32, 32)
    expected = theirs.encode(image)
    latents = ours.encode(image).latent_dist.mode()
    torch.testing.assert_close(latents, expected[:, :16], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.decode(latents).sample, theirs.decode(latents).clamp(-1, 1), rtol=1e-3, atol=1e-3)
