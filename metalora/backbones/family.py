"""What a family of base models is, what several families do in the same way, and the parts of a base while in use."""

import math
from collections.abc import Generator, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import torch
from packaging.version import Version
from torch import Tensor, nn

from ..config import Step, UserError
from ..method.adapter import Site
from ..method.flow import euler, noise_of
from .architecture import Architecture, ListedArchitecture
from .block_swapping import lists_of
from .protocol import Prompt
from .speed import Checkpointing, selective

NO = "no_"  # before the name of a part of a Prompt: the same of the empty prompt, for classifier-free guidance
MASK = "_mask"  # behind the name of a part of a Prompt: which of its tokens are real, where lengths differ in a batch

Releases = Mapping[str, Mapping[str, Any]]  # name of an architecture -> the transformer's settings that tell it


class Family:
    """What one family of base models does its own way: its constants, and the questions that it answers."""

    name = ""  # as files and --backbone call it
    pipeline = ""  # the classes of diffusers
    transformer = ""
    since = "0"  # the first version of diffusers that has them as they are used here
    multiple = 16  # image sides must be multiples of this: the autoencoder's 8 times the patches' 2
    cell = 8  # pixels of a side that a latent covers
    packed = 4  # latents that become one token, side by side; 1 where the transformer's settings count channels
    max_tokens = 512  # of a prompt
    ends = 0  # of `max_tokens`, those that end a text
    template = ""  # what is put around a prompt, as far as it takes of `max_tokens`
    padded = False  # whether every prompt is filled up to `max_tokens`
    guided_from = 1.0  # guidance above this is classifier-free guidance; infinite where the network itself takes it
    unasked: tuple[str, ...] = ()  # packages that diffusers and transformers would load, and the family does not need
    unasked_by_models: tuple[str, ...] = ()  # nor do its transformer and autoencoder these
    releases: ClassVar[Releases] = {}
    encoder_files: ClassVar[Mapping[str, str]] = {"text_encoder": "text_encoder"}  # flag of a single file -> component

    def known(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """A pipeline's settings by file, where single files must do without the hub; empty where they are fetched."""
        return {}

    def prompt(self, encoders: Any, text: str, max_tokens: int) -> dict[str, Tensor]:
        """The embeddings [1, ...] that `velocity` takes, by name; of "tokens" [1, n, ...] the real ones alone."""
        raise NotImplementedError

    def velocity(self, network: Any, latents: Tensor, t: Tensor, prompt: Prompt, guidance: float) -> Tensor:
        """d x_t / dt of latents [b, c, h, w] at times t [b], where t = 1 is noise; all on the network's device."""
        raise NotImplementedError

    def latent_shape(self, config: Mapping[str, Any], width: int, height: int) -> tuple[int, int, int]:
        """(c, h, w) of the latents of an image, by the transformer's settings."""
        return config["in_channels"] // self.packed, height // self.cell, width // self.cell

    def guided(self, with_prompt: Tensor, without: Tensor, guidance: float) -> Tensor:
        """Classifier-free guidance: the velocity to follow, of those with the prompt and with the empty one.

        Guidance that begins at 0 is added to the velocity with the prompt, any other to the one without.
        """
        return (without if self.guided_from else with_prompt) + guidance * (with_prompt - without)

    def shift(self, config: Mapping[str, Any], steps: int, tokens: int, settings: Mapping[str, Any]) -> float | None:
        """The exponent by which times move towards noise; None where the scheduler's settings say it all."""
        return linear_shift(config, tokens) if config["use_dynamic_shifting"] else None

    def schedule(self, config: Mapping[str, Any], steps: int, tokens: int, settings: Mapping[str, Any]) -> Tensor:
        """Times [steps + 1] from about 1 to 0 for an image of so many tokens.

        `config` is the scheduler's, `settings` the pipeline's own.
        """
        from diffusers import FlowMatchEulerDiscreteScheduler

        scheduler = FlowMatchEulerDiscreteScheduler.from_config(dict(config))
        sigmas = torch.linspace(1, 1 / steps, steps).tolist()
        scheduler.set_timesteps(sigmas=sigmas, mu=self.shift(config, steps, tokens, settings))
        return scheduler.sigmas

    def overhead(self, tokenizer: Any) -> int:
        """How many of `max_tokens` are not the prompt's."""
        return self.ends + len(tokenizer(self.template, add_special_tokens=False).input_ids if self.template else ())

    def longest(self, config: Mapping[str, Any], tokenizer_settings: Mapping[str, Any]) -> int:
        """How many tokens of a prompt are read, by the settings of the transformer and of the tokenizer."""
        return self.max_tokens

    def encoders(self, components: Mapping[str, Any], settings: Mapping[str, Any]) -> Any:
        """What `prompt` takes: diffusers' pipeline, without transformer and autoencoder."""
        absent = dict.fromkeys(("transformer", "vae", "scheduler"))
        return diffusers_class(self, self.pipeline)(**components, **absent, **settings)

    def skeleton(self, config: Mapping[str, Any]) -> Any:
        """The transformer without a number in it: every layer's name and shape, from its settings alone."""
        with torch.device("meta"):
            return diffusers_class(self, self.transformer).from_config(dict(config))

    def architecture(self, config: Mapping[str, Any]) -> Architecture:
        """A name, and a site for each linear layer of the blocks that diffusers' class calls repeated."""
        network = self.skeleton(config)
        inside = {layer for blocks in lists_of(network) for block in blocks for layer in block.modules()}
        sites = [
            Site(name, name, layer.in_features, layer.out_features)
            for name, layer in network.named_modules()
            if layer in inside and isinstance(layer, nn.Linear)
        ]
        return ListedArchitecture(self.called(config), tuple(sites))

    def called(self, config: Mapping[str, Any]) -> str:
        """What files call a transformer of these settings: a LoRA of one fits another of the same name."""
        for release, told in self.releases.items():
            if all(config.get(key) == value for key, value in told.items()):
                return release
        if not config:  # a base of BASES that is its class's default
            return next(iter(self.releases))
        numbers = (value for key, value in sorted(config.items()) if "layers" in key or "heads" in key or key == "dim")
        return f"{self.name}-{'x'.join(str(number) for number in numbers if isinstance(number, int))}"


def diffusers_class(family: Family, name: str) -> Any:
    """A class of diffusers; a UserError where the installed version has none of this name, or an unfinished one."""
    import diffusers

    found = getattr(diffusers, name, None)
    if found is None or Version(diffusers.__version__).release < Version(family.since).release:
        raise UserError(
            f"{family.name} needs diffusers {family.since} or later, for its {name}, and {diffusers.__version__} is "
            f"installed: pip install 'diffusers>={family.since}'."
        )
    return found


def linear_shift(config: Any, tokens: int) -> float:
    """The exponent of a schedule's shift towards noise, which grows with the image (BFL's `get_lin_function`)."""
    slope = (config["max_shift"] - config["base_shift"]) / (config["max_image_seq_len"] - config["base_image_seq_len"])
    return config["base_shift"] + slope * (tokens - config["base_image_seq_len"])


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


class TextEncoders:
    """prompt -> its embeddings on the CPU, and those of the empty prompt where guidance wants them."""

    def __init__(self, family: Family, encoders: Any, max_tokens: int):
        self.family, self.encoders, self.max_tokens = family, encoders, max_tokens

    @torch.no_grad()
    def __call__(self, prompt: str) -> Prompt:
        """One prompt's; what lies behind `max_tokens` is left out."""
        return Prompt({**self._parts(prompt), **self._empty})

    @cached_property
    def _empty(self) -> dict[str, Tensor]:
        if self.family.guided_from == math.inf:
            return {}
        return {NO + name: part for name, part in self._parts("").items()}

    def _parts(self, text: str) -> dict[str, Tensor]:
        parts = self.family.prompt(self.encoders, text, self.max_tokens)
        return {name: part.cpu().contiguous() for name, part in parts.items()}


class Autoencoder:
    """A diffusers autoencoder: images [3, H, W] in 0..1 <-> latents [c, h, w] on the CPU; see `protocol.Autoencoder`.

    AutoencoderKL has one shift and one scale; AutoencoderKLQwenImage a mean and a deviation for each channel, and an
    axis of frames, of which an image is one; AutoencoderKLFlux2 makes patches of 2 x 2 first, and has the mean and the
    variance of each of their channels in a batch norm.
    """

    def __init__(self, vae: nn.Module):
        self.vae: Any = vae

    @torch.no_grad()
    def encode(self, image: Tensor) -> Tensor:
        """The mean of the posterior, not a sample: the same photo gives the same latents."""
        pixels = (image[None] * 2 - 1).to(self.vae.device, self.vae.dtype)
        mean = self.vae.encode(pixels.unsqueeze(2) if self._frames else pixels).latent_dist.mode()
        return self._standard(mean.squeeze(2) if self._frames else mean)[0].float().cpu()

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """[c, h, w] -> [3, H, W] in 0..1; or several at once, [n, c, h, w] -> [n, 3, H, W]."""
        batch = latents.reshape(-1, *latents.shape[-3:]).to(self.vae.device, self.vae.dtype)
        plain = self._plain(batch)
        images = self.vae.decode(plain.unsqueeze(2) if self._frames else plain, return_dict=False)[0]
        images = images[:, :, 0] if self._frames else images
        return (images.float().cpu() / 2 + 0.5).clamp(0, 1).view(*latents.shape[:-3], *images.shape[1:])

    @property
    def _frames(self) -> bool:
        return "latents_mean" in self.vae.config and "temperal_downsample" in self.vae.config

    @property
    def _patches(self) -> bool:
        return "batch_norm_eps" in self.vae.config

    def _standard(self, mean: Tensor) -> Tensor:
        """What the encoder said [b, c, h, w], as the transformer takes it."""
        config = self.vae.config
        if self._patches:
            middle, deviation = self._batch_norm()
            return (nn.functional.pixel_unshuffle(mean, 2) - middle) / deviation
        if self._frames:
            return (mean - _channels(config.latents_mean, mean)) / _channels(config.latents_std, mean)
        return (mean - config.shift_factor) * config.scaling_factor

    def _plain(self, latents: Tensor) -> Tensor:
        """The inverse."""
        config = self.vae.config
        if self._patches:
            middle, deviation = self._batch_norm()
            return nn.functional.pixel_shuffle(latents * deviation + middle, 2)
        if self._frames:
            return latents * _channels(config.latents_std, latents) + _channels(config.latents_mean, latents)
        return latents / config.scaling_factor + config.shift_factor

    def _batch_norm(self) -> tuple[Tensor, Tensor]:
        norm = self.vae.bn
        deviation = (norm.running_var + self.vae.config.batch_norm_eps).sqrt()
        return norm.running_mean.view(1, -1, 1, 1), deviation.view(1, -1, 1, 1)


def _channels(numbers: list[float], like: Tensor) -> Tensor:
    return torch.tensor(numbers, device=like.device, dtype=like.dtype).view(1, -1, 1, 1)


class PipelineDenoiser:
    """A transformer as a velocity function of latents [b, c, h, w]; see `protocol.Denoiser`."""

    def __init__(
        self, family: Family, network: nn.Module, scheduler_config: Mapping[str, Any], settings: Mapping[str, Any]
    ):
        self.family, self.scheduler_config, self.settings = family, scheduler_config, settings
        self.network: Any = network

    def __call__(self, latents: Tensor, t: Tensor, prompt: Prompt, guidance: float = 1.0) -> Tensor:
        """In float32; one prompt serves a whole batch, or each sample has its own."""
        device, dtype, b = self.network.device, self.network.dtype, len(latents)
        parts = Prompt(
            (name, part.to(device, dtype if part.is_floating_point() else None).expand(b, *part.shape[1:]))
            for name, part in prompt.items()
            if not name.startswith(NO)
        )
        return self.family.velocity(self.network, latents.to(device, dtype), t.to(device), parts, guidance).float()

    def checkpointing(self, how: int) -> None:
        """One of `Checkpointing`: what is computed again in backward instead of kept; True is FULL."""
        if how == Checkpointing.NONE:
            self.network.disable_gradient_checkpointing()
        else:
            self.network.enable_gradient_checkpointing(selective if how == Checkpointing.SELECTIVE else None)

    @torch.no_grad()
    def sample(
        self, prompt: Prompt, size: tuple[int, int], steps: int, guidance: float, seeds: Sequence[int]
    ) -> Generator[Step, None, Tensor]:
        """Euler steps down the family's schedule, as its pipeline makes them of noise drawn on a CPU."""
        latents = noise_of(seeds, self.family.latent_shape(self.network.config, *size)).to(self.network.device)
        tokens = size[0] * size[1] // self.family.multiple**2
        times = self.family.schedule(self.scheduler_config, steps, tokens, self.settings).to(latents.device)
        empty = Prompt({name.removeprefix(NO): part for name, part in prompt.items() if name.startswith(NO)})
        guides = guidance > self.family.guided_from and empty and not self.settings.get("is_distilled")

        def velocity(latents: Tensor, t: Tensor) -> Tensor:
            predicted = self(latents, t, prompt, guidance)
            return self.family.guided(predicted, self(latents, t, empty), guidance) if guides else predicted

        return (yield from euler(velocity, latents, times))
