"""The tiny FLUX and the miniature as ComfyUI's objects: equal to the headless backbone."""

import pytest
import torch
from comfyui import headless, needs_comfyui, pack, small_parts

from metalora.store.images import read_photo

pytestmark = needs_comfyui
TEXTS = ["a photo of a woman", "a photo of a man, smiling, (in a red coat:1.2)", "quixotic zebra", ""]


@pytest.fixture(scope="module", params=["tiny_flux.TinyFlux", "pipeline_folder.Miniature"])
def both(request):
    """(the headless backbone, ComfyUI's)."""
    return headless(request.param), pack("nodes.backbone").ComfyBackbone(*small_parts(request.param))


@pytest.mark.parametrize("text", TEXTS)
def test_a_prompt_is_read_alike(both, text: str):
    assert (both[1].name, both[1].max_tokens) == (both[0].name, both[0].max_tokens)
    with both[0].text_encoders() as reference, both[1].text_encoders() as encode:
        found, wanted = encode(text), reference(text)
        torch.testing.assert_close(found["cross_attn"], wanted["tokens"], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found["pooled_output"], wanted["pooled"], rtol=1e-4, atol=1e-5)


def test_a_photo_is_encoded_and_decoded_alike(both, portrait):
    photo = read_photo(portrait)[:, :96, :128]
    with both[0].autoencoder() as reference, both[1].autoencoder() as autoencoder:
        latents = reference.encode(photo)
        torch.testing.assert_close(autoencoder.encode(photo), latents, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(autoencoder.decode(latents), reference.decode(latents), rtol=1e-4, atol=1e-4)
