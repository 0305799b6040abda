"""Training on ComfyUI's objects: equal to the headless run, and nothing is left behind however it ends."""


import pytest
import torch
from comfyui import needs_comfyui, pack
from runs import CROPS, personalized

from metalora.config import PersonalizeConfig
from metalora.jobs.photos import plan_photo
from metalora.measure.faces import load_faces
from metalora.store import files
from metalora.store.cache import Cache

pytestmark = needs_comfyui
CONFIG = PersonalizeConfig(steps=12, learning_rate=3e-3, class_name="woman", save_every=100)


@pytest.fixture(scope="module")
def parts():
    """(MODEL, CLIP, VAE) of the tiny FLUX, made as a loader node makes them."""
    bridge, small = pack("nodes.bridge"), pack("nodes.small_flux")

    def build(read):
        return bridge.small_model(read), bridge.small_clip(read), bridge.small_vae(read)

    with torch.inference_mode():
        return small.load_small_flux(pack("metalora.backbones.tiny_flux").TinyFlux(), build)


def backbone_of(parts):
    return pack("nodes.backbone").ComfyBackbone(*parts)


def crops_of(portrait):
    planned = plan_photo(portrait, CROPS, load_faces(), multiple=16)
    return [planned.image(crop) for crop in planned.crops]


def trained(parts, crops, folder, cache, config=CONFIG, meta_down="random", show=None):
    jobs, pictures = pack("metalora.jobs"), pack("metalora.jobs.personalize_pictures")
    config = pack("metalora.config").PersonalizeConfig(**{f: getattr(config, f) for f in vars(config)})
    job = pictures.personalize_pictures(
        backbone_of(parts),
        crops,
        folder / "ada.adapter.safetensors",
        folder / "states",
        config,
        flips=True,
        meta_down=meta_down,
        cache=pack("metalora.store.cache").Cache(cache),
    )
    return jobs.run(job, show or (lambda progress: None))


def test_prompts_and_latents_are_those_of_the_headless_backbone(parts, tiny, portrait):
    ours, crop = backbone_of(parts), crops_of(portrait)[0]
    text = "a photo of a (red) woman"
    with ours.text_encoders() as encode, tiny.text_encoders() as reference:
        for found, wanted in zip(encode(text), reference(text), strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    with ours.autoencoder() as autoencoder, tiny.autoencoder() as reference:
        latents = reference.encode(crop)
        torch.testing.assert_close(autoencoder.encode(crop), latents, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(autoencoder.decode(latents), reference.decode(latents), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["meta-lora", "lora-crops"])
def test_the_lora_is_that_of_the_headless_run(parts, tiny, portrait, tmp_path, method: str):
    config = PersonalizeConfig(**{**vars(CONFIG), "method": method})
    headless = personalized(tiny, portrait, tmp_path / "headless.safetensors", Cache(tmp_path / "one"), config)
    wanted, _ = files.read(headless.adapter, ("adapter",))
    meta_down = "random" if method == "meta-lora" else None
    found = trained(parts, crops_of(portrait), tmp_path, tmp_path / "two", config, meta_down)
    tensors = found.adapters.tensors()
    assert tensors.keys() == wanted.keys()
    errors = {name: ((tensors[name] - wanted[name]).norm() / wanted[name].norm()).item() for name in wanted}
    print(f"worst relative difference: {max(errors.values()):.2e}")
    assert max(errors.values()) < 1e-4, max(errors.items(), key=lambda item: item[1])
    torch.testing.assert_close(
        torch.tensor(found.training.losses), torch.tensor(headless.training.losses), rtol=1e-5, atol=0
    )
