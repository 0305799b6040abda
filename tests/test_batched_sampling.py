"""Images made together are the images made alone."""

import torch

from metalora.backbones.flux import FluxBackbone
from metalora.backbones.protocol import Prompt
from metalora.jobs import run


def test_each_image_of_a_batch_has_its_own_prompt_and_noise(tiny: FluxBackbone):
    with tiny.text_encoders() as encode:
        prompts = [encode(text) for text in ("a photo of a woman", "a red boat", "a photo of a woman")]
    seeds = [5, 5, 6]
    together = Prompt(*(torch.cat(parts) for parts in zip(*prompts, strict=True)))
    with tiny.denoiser() as denoiser:
        latents = run(denoiser.sample(together, (64, 96), 4, 3.5, seeds))
        alone = [run(denoiser.sample(p, (64, 96), 4, 3.5, [seed])) for p, seed in zip(prompts, seeds, strict=True)]
        shared = run(denoiser.sample(prompts[0], (64, 96), 4, 3.5, [5, 6]))
    assert latents.shape == (3, 16, 12, 8)
    torch.testing.assert_close(latents, torch.cat(alone), rtol=0, atol=1e-4)
    torch.testing.assert_close(shared, latents[[0, 2]], rtol=0, atol=1e-4)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (latents[one] - latents[other]).abs().max() > 0.1
