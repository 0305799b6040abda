"""Z-Image and Turbo: time runs from noise to image, the output points the other way, prompts are of any length."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from ..family import MASK, Family, Releases
from ..protocol import Prompt


class ZImage(Family):
    """Guidance is counted from 0, as its pipeline counts: Turbo takes 0, the base about 4."""

    name = "z-image"
    pipeline, transformer, since = "ZImagePipeline", "ZImageTransformer2DModel", "0.36"
    packed = 1
    guided_from = 0.0
    template = "<|im_start|>user\n"
    releases: ClassVar[Releases] = {"z-image": {"dim": 3840, "n_layers": 30, "n_heads": 30}}

    def prompt(self, encoders: Any, text: str, max_tokens: int) -> dict[str, Tensor]:
        """The penultimate layer of a Qwen3."""
        device = encoders.text_encoder.device
        return {"tokens": encoders.encode_prompt(text, device=device, do_classifier_free_guidance=False)[0][0][None]}

    def velocity(self, network: Any, latents: Tensor, t: Tensor, prompt: Prompt, guidance: float) -> Tensor:
        """The class takes lists, a sample each, with an axis of frames."""
        texts = list(prompt["tokens"])
        if (real := prompt.get("tokens" + MASK)) is not None:
            texts = [text[kept] for text, kept in zip(texts, real, strict=True)]
        predicted = network(list(latents.unsqueeze(2)), 1 - t, texts, return_dict=False)[0]
        return -torch.stack(list(predicted)).squeeze(2)
