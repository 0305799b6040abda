"""A base model, opened by its name, folder or single files: through diffusers' own classes, whichever family it is of.

Each part is loaded only while in use. What one family does its own way is a small class, a `Family`, in the folder
families/; docs/adding-a-base.md shows how one is written.
"""

import gc
import logging
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import backbones
from ..config import DEFAULT_BACKBONE, BaseConfig, SpeedConfig, Step, UserError
from ..method.adapter import Site
from .architecture import Architecture
from .bases import BASES
from .block_swapping import check_count
from .family import NO, Autoencoder, Family, TextEncoders
from .pipeline_folder import MINIATURE, Miniature, PipelineFolder
from .protocol import Prompt
from .single_files import SingleFiles
from .speed import AS_IT_IS, Speed, attention_that_runs, choose_device, place, prepare, set_checkpointing, speed_of
from .tiny_flux import TinyFlux
from .weight_files import header_of

Parts = PipelineFolder | TinyFlux  # of a base; none is loaded until it is asked for, and none is kept

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
CAPTION = 64  # tokens of a long caption
LONGEST_TEMPLATE = 64  # tokens that a family puts around a prompt, at most


class PipelineBackbone:
    """A base model of any family, from parts that come from anywhere; see `protocol.Backbone`."""

    def __init__(self, parts: Parts, device: torch.device, dtype: torch.dtype, speed: Speed = AS_IT_IS):
        self.parts, self.device, self.dtype, self.speed = parts, device, dtype, speed
        self.memory_limit: int | None = None  # bytes, where a smaller card than the device is imitated
        self._fingerprints: dict[str, str] = {}  # reading files of many GB is done once

    @property
    def family(self) -> Family:
        """What it does its own way."""
        return self.parts.family

    @property
    def multiple(self) -> int:
        """Image sides must be multiples of this."""
        return self.family.multiple

    @cached_property
    def architecture(self) -> Architecture:
        """A name and sites, read from the files when first asked for."""
        return self.parts.architecture

    @property
    def name(self) -> str:
        """Of the architecture, as files name it."""
        return self.architecture.name

    @property
    def max_tokens(self) -> int:
        """Of a prompt."""
        return self.parts.max_tokens

    @property
    def caption_tokens(self) -> int:
        """What a caption takes: all there are, or a guess where prompts are of any length."""
        return self.max_tokens if self.family.padded else CAPTION

    def sites(self, preset: str) -> list[Site]:
        """The sites of a preset, by diffusers' names."""
        return self.architecture.sites(preset)

    def unread(self, prompt: str) -> str:
        """The end of the prompt that no encoder reads; of FLUX.1's, T5 reads the most."""
        if len(prompt.encode()) + LONGEST_TEMPLATE <= self.max_tokens:  # a token is a byte at least: most prompts need
            return ""  # no tokenizer
        tokenizer = self._tokenizer
        found = tokenizer(prompt, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        read = found.offset_mapping[: self.max_tokens - self.family.overhead(tokenizer)]
        return prompt[max((end for _, end in read), default=0) :].strip()

    @cached_property
    def _tokenizer(self) -> Any:
        with lean_imports(*self.family.unasked):  # whoever imports transformers first settles what it looks for
            return self.parts.tokenizer()

    def fingerprint(self, part: str) -> str:
        """Changes with the part's weights and with the precision it runs in."""
        if part not in self._fingerprints:
            numbers = self.speed.weights if part == "transformer" else None
            with lean_imports(*self.family.unasked, *self.family.unasked_by_models):  # tiny's are drawn now
                self._fingerprints[part] = f"{self.parts.fingerprint(part)}-{numbers or self.dtype}"
        return self._fingerprints[part]

    @contextmanager
    def text_encoders(self) -> Iterator[TextEncoders]:
        """The pipeline without transformer and autoencoder."""
        with lean_imports(*self.family.unasked):
            components = self.parts.text_encoders(self.device, self.dtype)
        loaded = TextEncoders(self.family, self.family.encoders(components, self.parts.settings), self.max_tokens)
        del components
        try:
            yield loaded
        finally:
            del loaded.encoders  # the caller's variable outlives this context; their memory must not
            free()

    @contextmanager
    def autoencoder(self) -> Iterator[Autoencoder]:
        """In float32 whatever the backbone's precision: it is small, and sees each photo once."""
        with lean_imports(*self.family.unasked, *self.family.unasked_by_models):
            loaded = Autoencoder(self.parts.autoencoder(self.device, torch.float32))
        try:
            yield loaded
        finally:
            del loaded.vae
            free()

    @contextmanager
    def denoiser(self) -> Iterator["PipelineDenoiser"]:
        """The frozen transformer."""
        self.speed.check(self.device)
        # Made ready in main memory where the card may not hold it as it comes.
        first = torch.device("cpu") if self.speed.weights or self.speed.swapped_blocks else self.device
        with lean_imports(*self.family.unasked, *self.family.unasked_by_models):
            network = self.parts.transformer(first, self.dtype).eval().requires_grad_(False)
        network = place(prepare(network, self.speed), self.speed, self.device)
        loaded = PipelineDenoiser(self.family, network, self.parts.scheduler_config, self.parts.settings)
        del network
        try:
            yield loaded
        finally:
            del loaded.network
            free()


def open_backbone(config: BaseConfig, how: SpeedConfig | None = None) -> PipelineBackbone:
    """The base that is named, to be run in this way; nothing is loaded yet: the parts are, when they are needed.

    A name is miniature, tiny, one of BASES, a diffusers folder or a hub name; single files take the place of its own
    weights.
    """
    files = config.single_files
    parts = find_parts(default_base(files) if config.backbone is None else config.backbone, files)
    own = "fp32" if isinstance(parts, TinyFlux | Miniature) else "bf16"
    precision = PRECISIONS[own if config.precision == "auto" else config.precision]
    backbone = PipelineBackbone(parts, choose_device(config.device), precision)
    if how is not None:
        backbone.speed = speed_of(how)
        if backbone.speed.swapped_blocks:
            check_count(backbone.speed.swapped_blocks, len(backbone.architecture.blocks))
        backbone.speed.check(backbone.device)
    return backbone


def how_it_runs(backbone: PipelineBackbone) -> str:
    """A sentence."""
    kernel = attention_that_runs(backbone.speed, backbone.device, backbone.dtype)
    return f"the base runs in {str(backbone.dtype).removeprefix('torch.')}: {backbone.speed} ({kernel})"


def default_base(files: Mapping[str, Path]) -> str:
    """Which base is meant where none is named: with single files FLUX.1's, dev or schnell by its transformer."""
    if not files:
        return DEFAULT_BACKBONE
    path = files.get("transformer")
    dev = path is None or not path.is_file() or any("guidance" in key for key in header_of(path))
    return "flux-dev" if dev else "flux-schnell"


def find_parts(name: str, files: Mapping[str, Path]) -> Parts:
    """Where the parts come from."""
    hub = BASES[name].hub if name in BASES else name
    if files:
        if name == "tiny":
            raise UserError("tiny is drawn from a seed: single files are not of it. Name their base with --backbone.")
        return SingleFiles(MINIATURE if name == "miniature" else hub, files)
    return Miniature() if name == "miniature" else TinyFlux() if name == "tiny" else PipelineFolder(hub)


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
        set_checkpointing(self.network, how)

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


@torch.no_grad()
def euler(
    velocity: Callable[[Tensor, Tensor], Tensor], latents: Tensor, times: Tensor
) -> Generator[Step, None, Tensor]:
    """From noise [n, c, h, w] to latents on the CPU in Euler steps between times [steps + 1]."""
    steps = len(times) - 1
    for index in range(steps):
        latents = latents + (times[index + 1] - times[index]) * velocity(latents, times[index].expand(len(latents)))
        yield Step(index + 1, steps)
    return latents.cpu()


_not_found: set[str] = set()  # what transformers was not shown when it was first imported


@contextmanager
def lean_imports(*unasked: str) -> Iterator[None]:
    """Inside, where the process is ours, diffusers and transformers do not find these packages, which they would load.

    FLUX.1 needs nothing of what they do with them: it saves 3 of 8 seconds. bitsandbytes' advice about its kernels is
    not shown. What transformers finds is settled when it is first imported, by open_clip for instance: from then on it
    would import in vain what is hidden only now.
    """
    hidden = [name for name in unasked if backbones.own_process and name not in sys.modules]
    if "transformers" in sys.modules:
        hidden = [name for name in hidden if name in _not_found]
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
        if "transformers" in modules:
            _not_found.update(hidden)


def noise_of(seeds: Sequence[int], shape: tuple[int, int, int]) -> Tensor:
    """[n, c, h, w]: each image's own noise, as a CPU generator draws it."""
    return torch.cat([torch.randn((1, *shape), generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def free() -> None:
    """Give a part's memory back before the next one is loaded: the parts together may not fit."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
