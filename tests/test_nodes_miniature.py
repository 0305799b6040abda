"""A pipeline of the miniature's kind, widths and tokenizers, as ComfyUI's objects: equal to the headless backbone."""

import pytest
import torch
from comfyui import needs_comfyui, pack

from metalora.backbones.pipeline import PipelineBackbone
from metalora.backbones.pipeline_folder import MINIATURE as FOLDER
from metalora.backbones.pipeline_folder import PipelineFolder
from metalora.backbones.protocol import Prompt
from metalora.store.images import read_photo

pytestmark = needs_comfyui
TEXTS = ["a photo of a woman", "a photo of a man, smiling, (in a red coat:1.2)", "quixotic zebra", ""]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """The shipped one; where there is none yet, one with random weights as its training exports it."""
    if (FOLDER / "model_index.json").is_file():
        return FOLDER
    from tools.miniature.autoencoder import new_autoencoder
    from tools.miniature.flow_model import MiniatureFlux, Size
    from tools.miniature.train_flow import export

    torch.manual_seed(0)
    model, folder = MiniatureFlux(Size(1, 1)), tmp_path_factory.mktemp("miniature") / "pipeline"
    with torch.no_grad():
        for weight in model.transformer.parameters():
            weight.copy_(torch.randn(weight.shape) * (weight.shape[-1] ** -0.5 if weight.ndim > 1 else 0.1))
    export(model, new_autoencoder(), folder)
    return folder


@pytest.fixture(scope="module")
def headless(pipeline):
    return PipelineBackbone(PipelineFolder(pipeline), torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def ours(pipeline):
    parts = pack("metalora.backbones.pipeline_folder").PipelineFolder(pipeline)
    return pack("nodes.backbone").ComfyBackbone(*pack("nodes.bridge.small").small_parts(parts))


@pytest.mark.parametrize("text", TEXTS)
def test_a_prompt_is_read_alike(headless, ours, text: str):
    with headless.text_encoders() as reference, ours.text_encoders() as encode:
        found, wanted = encode(text), reference(text)
        torch.testing.assert_close(found["cross_attn"], wanted["tokens"], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found["pooled_output"], wanted["pooled"], rtol=1e-4, atol=1e-5)


def test_a_photo_is_encoded_and_decoded_alike(headless, ours, portrait):
    photo = read_photo(portrait)[:, :96, :128]
    with headless.autoencoder() as reference, ours.autoencoder() as autoencoder:
        latents = reference.encode(photo)
        torch.testing.assert_close(autoencoder.encode(photo), latents, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(autoencoder.decode(latents), reference.decode(latents), rtol=1e-4, atol=1e-4)


def test_the_velocity_is_that_of_the_headless_backbone(headless, ours):
    generator = torch.Generator().manual_seed(0)
    shape = headless.architecture
    latents = torch.randn(2, shape.in_channels // 4, 8, 12, generator=generator)
    tokens = torch.randn(1, ours.max_tokens, shape.joint_dim, generator=generator)
    pooled = torch.randn(1, shape.pooled_dim, generator=generator)
    prompt, words = Prompt(tokens=tokens, pooled=pooled), Prompt(cross_attn=tokens, pooled_output=pooled)
    t = torch.tensor([0.25, 0.75])
    with headless.denoiser() as reference, ours.denoiser() as denoiser, torch.no_grad():
        wanted = reference(latents, t, prompt, 3.5)
        torch.testing.assert_close(denoiser(latents, t, words, 3.5), wanted, rtol=1e-4, atol=1e-4)
    assert ours.max_tokens == headless.max_tokens
    assert ours.name == headless.name
