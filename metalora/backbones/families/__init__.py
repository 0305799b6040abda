"""The families of base models that run through diffusers' classes: FLUX.1 has a file of its own, others are here."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..family import MASK, Family, Releases, linear_shift, pack, positions, unpack
from ..protocol import Prompt
from .flux import FLUX

TURBO_SHIFT = 1.15  # the exponent that Krea 2's pipeline takes for Turbo, whatever the size of the image


class Flux2Klein(Family):
    """FLUX.2-klein, base and distilled: latents are 2 x 2 patches already, every prompt is 512 tokens of a Qwen3.

    FLUX.2-dev, which takes a guidance and a Mistral, is another pipeline.
    """

    name = "flux.2-klein"
    pipeline, transformer, since = "Flux2KleinPipeline", "Flux2Transformer2DModel", "0.37"
    cell, packed = 16, 1
    padded = True
    template = "<|im_start|>user\n"
    releases: ClassVar[Releases] = {
        "flux.2-klein-4b": {"num_layers": 5, "num_single_layers": 20, "num_attention_heads": 24},
        "flux.2-klein-9b": {"num_layers": 8, "num_single_layers": 24, "num_attention_heads": 32},
    }

    def prompt(self, encoders: Any, text: str, max_tokens: int) -> dict[str, Tensor]:
        """The padding is read as well: nothing masks it."""
        return {"tokens": encoders.encode_prompt(text, device=encoders.text_encoder.device)[0]}

    def velocity(self, network: Any, latents: Tensor, t: Tensor, prompt: Prompt, guidance: float) -> Tensor:
        """A position is (image, row, column, place in the text)."""
        b, c, h, w = latents.shape
        tokens = prompt["tokens"]
        places = torch.arange(tokens.shape[1], device=latents.device)[:, None]
        predicted = network(
            hidden_states=latents.flatten(2).mT,
            timestep=t.to(latents.dtype),
            guidance=None,
            encoder_hidden_states=tokens,
            txt_ids=torch.nn.functional.pad(places, (3, 0)),
            img_ids=torch.nn.functional.pad(positions(h, w), (0, 1)).to(latents.device),
            return_dict=False,
        )[0]
        return predicted.mT.reshape(b, c, h, w)

    def shift(self, config: Mapping[str, Any], steps: int, tokens: int, settings: Mapping[str, Any]) -> float:
        """A fit to the numbers of tokens and of steps."""
        from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu

        return compute_empirical_mu(tokens, steps)


class ZImage(Family):
    """Z-Image and Turbo: time runs from noise to image, the output points the other way, prompts are of any length.

    Guidance is counted from 0, as its pipeline counts: Turbo takes 0, the base about 4.
    """

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


class QwenImage(Family):
    """Qwen-Image, of 20 billion parameters: prompts of any length; guidance leaves each token's velocity its length."""

    name = "qwen-image"
    pipeline, transformer = "QwenImagePipeline", "QwenImageTransformer2DModel"
    since = "0.37"  # the first that leaves padding out of attention
    max_tokens = 1024
    releases: ClassVar[Releases] = {
        "qwen-image": {"num_layers": 60, "num_attention_heads": 24, "attention_head_dim": 128}
    }

    def prompt(self, encoders: Any, text: str, max_tokens: int) -> dict[str, Tensor]:
        """The last layer of a Qwen2.5-VL, without the template before the prompt."""
        return {"tokens": encoders.encode_prompt(text, device=encoders.text_encoder.device)[0]}

    def velocity(self, network: Any, latents: Tensor, t: Tensor, prompt: Prompt, guidance: float) -> Tensor:
        """Positions come from the size of the image."""
        b, _, h, w = latents.shape
        predicted = network(
            hidden_states=pack(latents),
            timestep=t,
            encoder_hidden_states=prompt["tokens"],
            encoder_hidden_states_mask=prompt.get("tokens" + MASK),
            img_shapes=[[(1, h // 2, w // 2)]] * b,
            return_dict=False,
        )[0]
        return unpack(predicted, h, w)

    def guided(self, with_prompt: Tensor, without: Tensor, guidance: float) -> Tensor:
        """The usual direction, with the length that each token's velocity had."""
        _, _, h, w = with_prompt.shape
        wanted, there = pack(with_prompt), pack(super().guided(with_prompt, without, guidance))
        return unpack(there * (wanted.norm(dim=-1, keepdim=True) / there.norm(dim=-1, keepdim=True)), h, w)


class Krea2(Family):
    """Krea 2, Raw and Turbo: prompts are stacks of several layers of a Qwen3-VL.

    Guidance is counted from 0, as its pipeline counts: Turbo takes 0, Raw 4.5.
    """

    name = "krea-2"
    pipeline, transformer, since = "Krea2Pipeline", "Krea2Transformer2DModel", "0.39"
    guided_from = 0.0
    template = "<|im_end|>\n<|im_start|>assistant\n"
    releases: ClassVar[Releases] = {"krea-2": {"num_layers": 28, "num_attention_heads": 48, "attention_head_dim": 128}}

    def prompt(self, encoders: Any, text: str, max_tokens: int) -> dict[str, Tensor]:
        """Without the padding in the middle of the template: nothing reads it, and it has no place of its own."""
        tokens, real = encoders.encode_prompt(text, device=encoders.text_encoder.device)
        return {"tokens": tokens[:, real[0]]}

    def velocity(self, network: Any, latents: Tensor, t: Tensor, prompt: Prompt, guidance: float) -> Tensor:
        """All of the text is at the origin, in front of the image."""
        _, _, h, w = latents.shape
        text = torch.zeros(prompt["tokens"].shape[1], 3)
        predicted = network(
            hidden_states=pack(latents),
            encoder_hidden_states=prompt["tokens"],
            timestep=t.to(latents.dtype),
            position_ids=torch.cat([text, positions(h // 2, w // 2)]).to(latents.device),
            encoder_attention_mask=prompt.get("tokens" + MASK),
            return_dict=False,
        )[0]
        return unpack(predicted, h, w)

    def shift(self, config: Mapping[str, Any], steps: int, tokens: int, settings: Mapping[str, Any]) -> float:
        """Raw's grows with the image, Turbo's does not."""
        return TURBO_SHIFT if settings.get("is_distilled") else linear_shift(config, tokens)


class StableDiffusion3(Family):
    """Stable Diffusion 3.5 medium and large: two CLIPs and T5, latents that the network cuts into patches itself."""

    name = "sd3.5"
    pipeline, transformer, since = "StableDiffusion3Pipeline", "SD3Transformer2DModel", "0.35"
    packed = 1
    padded = True
    max_tokens, ends = 256, 1  # of T5's; the CLIPs read 77
    releases: ClassVar[Releases] = {
        "sd3.5-medium": {"num_layers": 24, "num_attention_heads": 24, "qk_norm": "rms_norm"},
        "sd3.5-large": {"num_layers": 38, "num_attention_heads": 38, "qk_norm": "rms_norm"},
    }

    def prompt(self, encoders: Any, text: str, max_tokens: int) -> dict[str, Tensor]:
        """CLIP's tokens before T5's, and both CLIPs' pooled outputs side by side."""
        tokens, _, pooled, _ = encoders.encode_prompt(
            *(text, text, text),
            device=encoders.text_encoder.device,
            do_classifier_free_guidance=False,
            max_sequence_length=max_tokens,
        )
        return {"tokens": tokens, "pooled": pooled}

    def velocity(self, network: Any, latents: Tensor, t: Tensor, prompt: Prompt, guidance: float) -> Tensor:
        """Times are counted in thousandths."""
        return network(
            hidden_states=latents,
            timestep=1000 * t,
            encoder_hidden_states=prompt["tokens"],
            pooled_projections=prompt["pooled"],
            return_dict=False,
        )[0]

    def schedule(self, config: Mapping[str, Any], steps: int, tokens: int, settings: Mapping[str, Any]) -> Tensor:
        """The scheduler's own times, down to the smallest that it was trained with."""
        from diffusers import FlowMatchEulerDiscreteScheduler

        scheduler = FlowMatchEulerDiscreteScheduler.from_config(dict(config))
        scheduler.set_timesteps(steps)
        return scheduler.sigmas


FAMILIES: tuple[Family, ...] = (FLUX, Flux2Klein(), ZImage(), QwenImage(), Krea2(), StableDiffusion3())
