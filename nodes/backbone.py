"""A backbone over ComfyUI's MODEL, CLIP and VAE, so that the jobs of the package run on what the user has loaded."""

import hashlib
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..metalora.backbones.architecture import Architecture, chosen
from ..metalora.backbones.families.flux import FluxShape, schedule, scheduler_config
from ..metalora.backbones.protocol import Prompt
from ..metalora.config import Step, UserError
from ..metalora.method.adapter import Site
from ..metalora.method.flow import euler, noise_of
from .bridge import devices, models, sites, training
from .gradient_check import check_gradients
from .gradients import Recomputing, trainable

SAMPLE = 4096  # numbers of a tensor that its fingerprint is made of


class ComfyBackbone:
    """A base that ComfyUI loaded, in any precision, or partly offloaded. Nothing of it is changed afterwards."""

    def __init__(self, model: Any, clip: Any, vae: Any, training_memory: int = 0):
        models.refuse_guidance_patches(model)
        self.model, self.clip, self.vae, self.training_memory = model, clip, vae, training_memory
        self.architecture: Architecture = sites.architecture_of(model, models.network_of(model))
        self.device: torch.device = model.load_device
        self.dtype: torch.dtype = models.compute_dtype(model)
        self.needs_cfg = models.needs_cfg(model)
        models.check_vae(model, vae)
        self.max_tokens = models.prompt_tokens(clip, self.architecture)
        self.multiple = models.cell_of(vae)
        self.current: ComfyDenoiser | None = None  # while the network is there
        self._fingerprints: dict[str, str] = {}

    @property
    def name(self) -> str:
        """Of the architecture, as files name it."""
        return self.architecture.name

    @property
    def caption_tokens(self) -> int:
        """What a caption takes, for memory estimates."""
        return self.max_tokens

    def unread(self, prompt: str) -> str:
        """Nothing: ComfyUI's text encoders read prompts of any length."""
        return ""

    def sites(self, preset: str) -> list[Site]:
        """The sites of a preset, in the layers that ComfyUI has."""
        return chosen(self.architecture.fused or self.architecture.places, preset)

    def fingerprint(self, part: str) -> str:
        """Of a sample of every tensor, the precision, and the LoRAs that are on the part already."""
        if part not in self._fingerprints:
            owner = {"transformer": self.model, "text_encoders": self.clip, "autoencoder": self.vae}[part]
            patcher = owner if part == "transformer" else owner.patcher
            state = f"conditioning {self.dtype} {models.patches_of(patcher)} {self.max_tokens}"
            self._fingerprints[part] = fingerprint(models.weights_of(owner, part), state)
        return self._fingerprints[part]

    @contextmanager
    def text_encoders(self) -> Iterator[Callable[[str], Prompt]]:
        """A CLIP, loaded by ComfyUI when it is used."""
        padded = self.max_tokens if isinstance(self.architecture, FluxShape) else None

        @torch.no_grad()
        def encode(text: str) -> Prompt:
            made = models.encode_prompt(self.clip, text, padded)
            return Prompt({name: part.cpu().clone() for name, part in made.items()})

        yield encode

    @contextmanager
    def autoencoder(self) -> Iterator["ComfyAutoencoder"]:
        """The VAE, loaded by ComfyUI when it is used."""
        yield ComfyAutoencoder(self.vae, self.model)

    @contextmanager
    def denoiser(self) -> Iterator["ComfyDenoiser"]:
        """The frozen network on its device; its gradients are checked on the first latents that it is given."""
        loaded = devices.load_on_device(models.uncompiled(self.model), self.training_memory)
        network = models.network_of(loaded)
        casts = bool(training.casting_layers(network))
        with trainable(network) as recomputing:
            self.current = ComfyDenoiser(models.Applied(loaded), network, self, recomputing, casts)
            try:
                yield self.current
            finally:
                self.current = None


class ComfyAutoencoder:
    """A VAE; latents are shifted and scaled as the network was trained on them."""

    def __init__(self, vae: Any, model: Any):
        self.vae, self.model = vae, model

    @torch.no_grad()
    def encode(self, image: Tensor) -> Tensor:
        """[3, H, W] in 0..1 -> [c, h, w]: the mean of the posterior, not a sample."""
        return models.latents_in(self.model, self.vae.encode(image.movedim(0, -1)[None]))[0].float().cpu()

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """The inverse; several at once are [n, c, h, w]."""
        images = self.vae.decode(models.latents_out(self.model, latents.reshape(-1, *latents.shape[-3:])))
        images = images.reshape(-1, *images.shape[-3:]).movedim(-1, 1).float().cpu().clamp(0, 1)
        return images.reshape(*latents.shape[:-3], *images.shape[1:])


class ComfyDenoiser:
    """A MODEL as a velocity function of latents [b, c, h, w]."""

    def __init__(
        self,
        applied: "models.Applied",
        network: nn.Module,
        backbone: ComfyBackbone,
        recomputing: Recomputing,
        casts_weights: bool,
    ):
        self.applied, self.network, self.backbone, self.recomputing = applied, network, backbone, recomputing
        self.casts_weights, self.checked = casts_weights, False
        self.negative: Prompt | None = None  # what images are led away from
        self.checkpointing(False)

    def __call__(self, latents: Tensor, t: Tensor, prompt: Prompt, guidance: float = 1.0) -> Tensor:
        """See `Denoiser`; one prompt serves a whole batch, or each sample has its own."""
        if any(name.endswith("_mask") and name.removesuffix("_mask") in prompt for name in prompt):
            return torch.cat([self(*own, guidance) for own in one_by_one(latents, t, prompt)])
        device = self.backbone.device
        given = (latents.to(device), t.to(device), {name: part.to(device) for name, part in prompt.items()}, guidance)
        if not self.checked:
            self.check(*given)
        return self.applied.velocity(*given)

    def check(self, *given: Any) -> None:
        """Before the first use: whether the parts belong together, and gradients through the blocks are right."""
        try:
            check_gradients(self.network, lambda: self.applied.velocity(*given))
        except RuntimeError as error:
            if "shape" not in str(error) and "size" not in str(error):
                raise
            raise UserError(
                f"This MODEL ({self.backbone.name}) cannot compute with what this CLIP, a "
                f"{type(self.backbone.clip.cond_stage_model).__name__}, makes of a prompt: {error}. Load the text "
                "encoder and the VAE that belong to the model."
            ) from error
        self.checked = True

    def checkpointing(self, on: int) -> None:
        """Recompute each block in backward or not; on where layers cast weights, whose copies would all be kept."""
        self.recomputing.on = bool(on) or self.casts_weights

    @torch.no_grad()
    def sample(
        self, prompt: Prompt, size: tuple[int, int], steps: int, guidance: float, seeds: Sequence[int]
    ) -> Generator[Step, None, Tensor]:
        """Euler steps, a FLUX.1's down the headless backbone's schedule; others with CFG, if there is a negative."""
        width, height = size
        known, cell = self.applied.base.latent_format, self.backbone.vae.spacial_compression_encode()
        latents = noise_of(seeds, (known.latent_channels, height // cell, width // cell)).to(self.backbone.device)
        times = self.applied.times(steps)
        shape = self.backbone.architecture
        if isinstance(shape, FluxShape):
            times = schedule(steps, latents.shape[2] * latents.shape[3] // 4, scheduler_config(shape))

        def velocity(latents: Tensor, t: Tensor) -> Tensor:
            t = t if self.applied.flow else t.clamp(max=0.999)
            predicted = self(latents, t, prompt, guidance)
            if self.negative is None:
                return predicted
            without = self(latents, t, self.negative, guidance)
            return without + guidance * (predicted - without)

        return (yield from euler(velocity, latents, times.to(latents)))


def one_by_one(latents: Tensor, t: Tensor, prompt: Prompt) -> Iterator[tuple[Tensor, Tensor, Prompt]]:
    """Samples whose prompts were filled up to one length, each with its own: some bases read no mask."""
    for row in range(len(latents)):
        own = {}
        for name, part in prompt.items():
            real = prompt.get(f"{name}_mask")
            if not (name.endswith("_mask") and name.removesuffix("_mask") in prompt):
                own[name] = part[row : row + 1] if real is None else part[row : row + 1, real[row]]
        yield latents[row : row + 1], t[row : row + 1], Prompt(own)


def fingerprint(tensors: dict[str, Tensor], state: str) -> str:
    """Changes with names, shapes, types and an even sample of each tensor; a real model is read in seconds."""
    sha = hashlib.sha256(state.encode())
    for name, tensor in sorted(tensors.items()):
        if name.endswith(("text_projection.weight", "logit_scale")):
            continue  # FLUX does not use them, and ComfyUI leaves in them what was in memory
        flat = training.stored(tensor).reshape(-1)
        sample = flat[:: max(1, flat.numel() // SAMPLE)].cpu().contiguous()
        sha.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        sha.update(sample.view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()
