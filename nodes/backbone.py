"""A backbone over ComfyUI's MODEL, CLIP and VAE, so that the jobs of the package run on what the user has loaded."""

import hashlib
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..metalora.backbones.flux import euler, noise_of
from ..metalora.backbones.flux_configs import scheduler_config
from ..metalora.backbones.keys import FluxShape, sites
from ..metalora.backbones.protocol import Prompt
from ..metalora.config import Step, UserError
from ..metalora.method.adapter import Site
from .bridge import devices, models, training
from .gradient_check import check_gradients
from .gradients import recomputed_blocks, trainable

SAMPLE = 4096  # numbers of a tensor that its fingerprint is made of


class ComfyBackbone:
    """A FLUX that ComfyUI loaded, bf16, fp8 or partly offloaded. Nothing of it is changed when a context has closed."""

    multiple = 16

    def __init__(self, model: Any, clip: Any, vae: Any, training_memory: int = 0):
        self.model, self.clip, self.vae, self.training_memory = model, clip, vae, training_memory
        self.shape: FluxShape = models.flux_shape(model)
        self.device: torch.device = model.load_device
        self.dtype: torch.dtype = models.compute_dtype(model)
        models.check_clip(clip)
        if vae.latent_channels != self.shape.in_channels // 4:
            raise UserError(
                f"This VAE makes latents of {vae.latent_channels} channels, but the model takes "
                f"{self.shape.in_channels // 4}. FLUX.1's is ae.safetensors."
            )
        self.current: ComfyDenoiser | None = None  # while the transformer is there
        self._fingerprints: dict[str, str] = {}

    @property
    def architecture(self) -> FluxShape:
        """Its name and its sites."""
        return self.shape

    @property
    def name(self) -> str:
        """Of the architecture, as files name it."""
        return self.shape.name

    @property
    def max_tokens(self) -> int:
        """Of a prompt."""
        return models.prompt_tokens(self.clip, self.shape)

    def unread(self, prompt: str) -> str:
        """Nothing: ComfyUI's text encoders read prompts of any length."""
        return ""

    def sites(self, preset: str) -> list[Site]:
        """The sites of a preset, as slices of the fused layers that ComfyUI has."""
        return sites(self.shape, preset, fused=True)

    def fingerprint(self, part: str) -> str:
        """Of a sample of every tensor, the precision, and the LoRAs that are on the part already."""
        if part not in self._fingerprints:
            owner = {"transformer": self.model, "text_encoders": self.clip, "autoencoder": self.vae}[part]
            patcher = owner if part == "transformer" else owner.patcher
            state = f"{self.dtype} {models.patches_of(patcher)} {self.max_tokens}"
            self._fingerprints[part] = fingerprint(models.weights_of(owner, part), state)
        return self._fingerprints[part]

    @contextmanager
    def text_encoders(self) -> Iterator[Callable[[str], Prompt]]:
        """CLIP and T5, loaded by ComfyUI when they are used."""

        @torch.no_grad()
        def encode(text: str) -> Prompt:
            tokens, pooled = models.encode_prompt(self.clip, text, self.max_tokens)
            return Prompt(tokens=tokens.cpu().clone(), pooled=pooled.cpu().clone())

        yield encode

    @contextmanager
    def autoencoder(self) -> Iterator["ComfyAutoencoder"]:
        """The VAE, loaded by ComfyUI when it is used."""
        yield ComfyAutoencoder(self.vae)

    @contextmanager
    def denoiser(self) -> Iterator["ComfyDenoiser"]:
        """The frozen transformer on its device, its gradients checked."""
        loaded = devices.load_on_device(self.model, self.training_memory)
        network = models.network_of(loaded)
        casts = bool(training.casting_layers(network))
        with trainable(network):
            denoiser = ComfyDenoiser(network, self.shape, self.device, self.dtype, casts)
            check_gradients(network, self.device, self.dtype, denoiser.options)
            self.current = denoiser
            try:
                yield denoiser
            finally:
                self.current = None


class ComfyAutoencoder:
    """A VAE; latents are shifted and scaled as the transformer was trained on them."""

    def __init__(self, vae: Any):
        self.vae = vae

    @torch.no_grad()
    def encode(self, image: Tensor) -> Tensor:
        """[3, H, W] in 0..1 -> [c, H/8, W/8]: the mean of the posterior, not a sample."""
        return models.latents_in(self.vae.encode(image.movedim(0, -1)[None]))[0].float().cpu()

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """The inverse; several at once are [n, c, h, w]."""
        images = self.vae.decode(models.latents_out(latents.reshape(-1, *latents.shape[-3:]))).movedim(-1, 1)
        return images.float().cpu().clamp(0, 1).reshape(*latents.shape[:-3], *images.shape[1:])


class ComfyDenoiser:
    """FLUX's transformer as a velocity function of latents [b, c, h, w]."""

    def __init__(
        self, network: nn.Module, shape: FluxShape, device: torch.device, dtype: torch.dtype, casts_weights: bool
    ):
        self.network, self.shape, self.device, self.dtype = network, shape, device, dtype
        self.casts_weights = casts_weights
        self.options: dict[str, Any] = {}
        self.checkpointing(False)

    def __call__(self, latents: Tensor, t: Tensor, prompt: Prompt, guidance: float = 1.0) -> Tensor:
        """See `Denoiser`; one prompt serves a whole batch."""
        b = len(latents)
        parts = (prompt["tokens"], prompt["pooled"])
        tokens, pooled = (part.to(self.device, self.dtype).expand(b, *part.shape[1:]) for part in parts)
        strength = torch.full((b,), guidance, device=self.device, dtype=self.dtype) if self.shape.guidance else None
        predicted = self.network(
            latents.to(self.device, self.dtype),
            t.to(self.device).float(),
            context=tokens,
            y=pooled,
            guidance=strength,
            transformer_options=self.options,
        )
        return predicted.float()

    def checkpointing(self, on: bool) -> None:
        """Recompute each block in backward or not; on where layers cast weights, whose copies would all be kept."""
        self.options = {"optimized_attention_override": training.differentiable_attention}
        if on or self.casts_weights:
            self.options |= recomputed_blocks(self.network)

    def sample(
        self, prompt: Prompt, size: tuple[int, int], steps: int, guidance: float, seeds: Sequence[int]
    ) -> Generator[Step, None, Tensor]:
        """As the headless backbone samples: the same noise, the same schedule."""
        width, height = size
        noise = noise_of(seeds, (self.shape.in_channels // 4, height // 8, width // 8)).to(self.device)
        return (yield from euler(self, noise, prompt, steps, guidance, scheduler_config(self.shape)))


def fingerprint(tensors: dict[str, Tensor], state: str) -> str:
    """Changes with names, shapes, types and an even sample of each tensor; a real model is read in seconds."""
    sha = hashlib.sha256(state.encode())
    for name, tensor in sorted(tensors.items()):
        if name.endswith(("text_projection.weight", "logit_scale")):
            continue  # FLUX does not use them, and ComfyUI leaves in them what was in memory
        flat = tensor.detach().reshape(-1)
        sample = flat[:: max(1, flat.numel() // SAMPLE)].cpu().contiguous()
        sha.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        sha.update(sample.view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()
