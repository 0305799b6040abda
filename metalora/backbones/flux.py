"""FLUX through diffusers' own classes: prompts, latents, velocity and sampling, each part loaded only while in use."""

import gc
import logging
import math
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from .. import backbones
from ..config import Step
from ..method.adapter import Site
from ..method.flow import shifted
from .flux_parts import FluxParts
from .keys import FluxShape, sites
from .protocol import Denoiser, Prompt
from .speed import AS_IT_IS, Speed, place, prepare, set_checkpointing

UNASKED = ("peft", "scipy", "bitsandbytes", "torchvision")


class FluxBackbone:
    """A FLUX whose parts come from anywhere (`FluxParts`): a diffusers folder, single files, or a seed."""

    multiple = 16  # the autoencoder's 8 times the 2 x 2 latents of a token

    def __init__(self, parts: FluxParts, device: torch.device, dtype: torch.dtype, speed: Speed = AS_IT_IS):
        self.parts, self.device, self.dtype, self.speed = parts, device, dtype, speed
        self.memory_limit: int | None = None  # bytes, where a smaller card than the device is imitated
        self._t5_tokenizer: Any = None  # of `unread`
        self._fingerprints: dict[str, str] = {}  # reading files of many GB is done once

    @cached_property
    def shape(self) -> FluxShape:
        """The architecture, read from the files when it is first asked for."""
        return self.parts.shape

    @property
    def architecture(self) -> FluxShape:
        """The same, as every backbone has it."""
        return self.shape

    @property
    def name(self) -> str:
        """Of the architecture, as files name it."""
        return self.shape.name

    @property
    def max_tokens(self) -> int:
        """Of a prompt."""
        return self.parts.max_tokens

    def unread(self, prompt: str) -> str:
        """What T5 leaves out. CLIP reads 77 tokens at most, but only for the one vector of the whole prompt."""
        if len(prompt.encode()) + 2 <= self.max_tokens:  # a token is a byte at least: most prompts load no tokenizer
            return ""
        self._t5_tokenizer = self._t5_tokenizer or self.parts.t5_tokenizer()
        read = self._t5_tokenizer(
            prompt, truncation=True, max_length=self.max_tokens, return_offsets_mapping=True, verbose=False
        )
        return prompt[max(end for _, end in read.offset_mapping) :].strip()

    def sites(self, preset: str) -> list[Site]:
        """The sites of a preset, as diffusers names and splits the layers."""
        return sites(self.shape, preset, fused=False)

    def fingerprint(self, part: str) -> str:
        """Changes with the part's weights and with the precision it runs in."""
        if part not in self._fingerprints:
            numbers = self.speed.weights if part == "transformer" else None
            self._fingerprints[part] = f"{self.parts.fingerprint(part)}-{numbers or self.dtype}"
        return self._fingerprints[part]

    @contextmanager
    def text_encoders(self) -> Iterator["FluxTextEncoders"]:
        """CLIP and T5."""
        with lean_imports(*UNASKED):
            loaded = FluxTextEncoders(*self.parts.text_encoders(self.device, self.dtype), self.max_tokens)
        try:
            yield loaded
        finally:
            del loaded.clip, loaded.t5  # the caller's variable outlives this context; their memory must not
            _free()

    @contextmanager
    def autoencoder(self) -> Iterator["FluxAutoencoder"]:
        """In float32 whatever the backbone's precision: it is small, and sees each photo once."""
        with lean_imports(*UNASKED, "transformers"):
            loaded = FluxAutoencoder(self.parts.autoencoder(self.device, torch.float32))
        try:
            yield loaded
        finally:
            del loaded.vae
            _free()

    @contextmanager
    def denoiser(self) -> Iterator["FluxDenoiser"]:
        """The frozen transformer."""
        self.speed.check(self.device)
        first = torch.device("cpu") if self.speed.made_in_main_memory else self.device
        with lean_imports(*UNASKED, "transformers"):
            network = self.parts.transformer(first, self.dtype).eval().requires_grad_(False)
        network = place(prepare(network, self.speed), self.speed, self.device)
        loaded = FluxDenoiser(network, self.parts.scheduler_config, self.shape.guidance)
        del network
        try:
            yield loaded
        finally:
            del loaded.network
            _free()


class FluxTextEncoders:
    """prompt -> CLIP's pooled output and T5's tokens, on the CPU, as FluxPipeline makes them."""

    def __init__(self, clip_tokenizer: Any, clip: nn.Module, t5_tokenizer: Any, t5: nn.Module, max_tokens: int):
        self.clip_tokenizer, self.t5_tokenizer = clip_tokenizer, t5_tokenizer
        self.clip: Any = clip
        self.t5: Any = t5
        self.max_tokens = max_tokens

    @torch.no_grad()
    def __call__(self, prompt: str) -> Prompt:
        """One prompt's embeddings; longer prompts are cut at 77 tokens for CLIP and at `max_tokens` for T5."""
        tokens = self.t5(_ids(self.t5_tokenizer, prompt, self.max_tokens, self.t5.device))[0]
        pooled = self.clip(_ids(self.clip_tokenizer, prompt, 77, self.clip.device)).pooler_output
        return Prompt(tokens=tokens.cpu(), pooled=pooled.cpu())


class FluxAutoencoder:
    """FLUX's autoencoder; latents are shifted and scaled as the transformer was trained on them."""

    def __init__(self, vae: nn.Module):
        self.vae: Any = vae

    @torch.no_grad()
    def encode(self, image: Tensor) -> Tensor:
        """The mean of the posterior, not a sample: the same photo gives the same latents."""
        mean = self.vae.encode((image[None] * 2 - 1).to(self.vae.device, self.vae.dtype)).latent_dist.mode()
        return ((mean - self.vae.config.shift_factor) * self.vae.config.scaling_factor)[0].float().cpu()

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """[c, h, w] -> [3, 8h, 8w] in 0..1; or several at once, [n, c, h, w] -> [n, 3, 8h, 8w]."""
        unscaled = latents / self.vae.config.scaling_factor + self.vae.config.shift_factor
        batch = unscaled.reshape(-1, *latents.shape[-3:]).to(self.vae.device, self.vae.dtype)
        images = self.vae.decode(batch, return_dict=False)[0]
        return (images.float().cpu() / 2 + 0.5).clamp(0, 1).view(*latents.shape[:-3], *images.shape[1:])


class FluxDenoiser:
    """FLUX's transformer as a velocity function of latents [b, c, h, w]."""

    def __init__(self, network: nn.Module, scheduler_config: dict[str, Any], takes_guidance: bool):
        self.network: Any = network
        self.scheduler_config, self.takes_guidance = scheduler_config, takes_guidance

    def __call__(self, latents: Tensor, t: Tensor, prompt: Prompt, guidance: float = 1.0) -> Tensor:
        """See `Denoiser`; one prompt serves a whole batch, or each sample has its own."""
        b, _, h, w = latents.shape
        device, dtype = self.network.device, self.network.dtype
        parts = {name: part.to(device, dtype).expand(b, *part.shape[1:]) for name, part in prompt.items()}
        tokens = parts["tokens"]
        predicted = self.network(
            hidden_states=pack(latents).to(device, dtype),
            timestep=t.to(device),
            guidance=torch.full((b,), guidance, device=device) if self.takes_guidance else None,
            encoder_hidden_states=tokens,
            pooled_projections=parts["pooled"],
            txt_ids=torch.zeros(tokens.shape[1], 3, device=device),
            img_ids=positions(h // 2, w // 2).to(device),
            return_dict=False,
        )[0]
        return unpack(predicted.float(), h, w)

    def checkpointing(self, how: int) -> None:
        """One of `Checkpointing`: what is computed again in backward instead of kept; True is FULL."""
        set_checkpointing(self.network, how)

    @torch.no_grad()
    def sample(
        self, prompt: Prompt, size: tuple[int, int], steps: int, guidance: float, seeds: Sequence[int]
    ) -> Generator[Step, None, Tensor]:
        """Euler steps down FLUX's schedule. Each seed gives the noise FluxPipeline draws with a CPU generator."""
        width, height = size
        noise = noise_of(seeds, (self.network.config.in_channels // 4, height // 8, width // 8))
        return (yield from euler(self, noise.to(self.network.device), prompt, steps, guidance, self.scheduler_config))


def noise_of(seeds: Sequence[int], shape: tuple[int, int, int]) -> Tensor:
    """[n, c, h, w]: each image's own noise, as a CPU generator draws it."""
    return torch.cat([torch.randn((1, *shape), generator=torch.Generator().manual_seed(seed)) for seed in seeds])


@torch.no_grad()
def euler(
    denoiser: Denoiser, latents: Tensor, prompt: Prompt, steps: int, guidance: float, scheduler_config: dict[str, Any]
) -> Generator[Step, None, Tensor]:
    """From noise [n, c, h, w] to latents on the CPU, in Euler steps down FLUX's schedule."""
    times = schedule(steps, latents.shape[2] * latents.shape[3] // 4, scheduler_config)
    for index in range(steps):
        predicted = denoiser(latents, times[index].expand(len(latents)), prompt, guidance)
        latents = latents + (times[index + 1] - times[index]) * predicted
        yield Step(index + 1, steps)
    return latents.cpu()


def pack(latents: Tensor) -> Tensor:
    """[b, c, h, w] -> tokens [b, h/2 * w/2, c * 4]: each token is a 2 x 2 patch."""
    b, c, h, w = latents.shape
    return latents.view(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(b, h * w // 4, c * 4)


def unpack(tokens: Tensor, h: int, w: int) -> Tensor:
    """The inverse of `pack`."""
    b, _, c = tokens.shape
    return tokens.view(b, h // 2, w // 2, c // 4, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(b, c // 4, h, w)


def positions(rows: int, columns: int) -> Tensor:
    """[rows * columns, 3]: (0, row, column) of each image token, for the rotary embedding."""
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.stack([torch.zeros_like(row), row, column], dim=-1).reshape(-1, 3).float()


def schedule(steps: int, tokens: int, config: dict[str, Any]) -> Tensor:
    """Times [steps + 1] from 1 to 0, shifted towards noise the more the larger the image (BFL's `get_schedule`)."""
    times = torch.linspace(1, 1 / steps, steps)
    if config["use_dynamic_shifting"]:
        slope = (config["max_shift"] - config["base_shift"]) / (
            config["max_image_seq_len"] - config["base_image_seq_len"]
        )
        mu = config["base_shift"] + slope * (tokens - config["base_image_seq_len"])
        times = shifted(times, math.exp(mu))
    else:
        times = shifted(times, config["shift"])
    return torch.cat([times, torch.zeros(1)])


def _ids(tokenizer: Any, prompt: str, length: int, device: torch.device) -> Tensor:
    return tokenizer(
        prompt, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    ).input_ids.to(device)


@contextmanager
def lean_imports(*unasked: str) -> Iterator[None]:
    """Inside, where the process is ours, diffusers and transformers do not find these packages, which they would load.

    FLUX needs nothing of what they do with them: it saves 3 of 8 seconds. bitsandbytes' advice about its kernels is not
    shown.
    """
    hidden = [name for name in unasked if backbones.own_process and name not in sys.modules]
    modules: dict[str, Any] = sys.modules
    modules.update(dict.fromkeys(hidden))
    advice = logging.getLogger("bitsandbytes.backends.cpu.ops")
    level = advice.level
    advice.setLevel(logging.ERROR)
    try:
        yield
    finally:
        advice.setLevel(level)
        for name in hidden:
            del modules[name]


def _free() -> None:
    """Give the part's memory back before the next one is loaded: the parts together may not fit."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
