"""A base model, opened by its name, folder or single files: through diffusers' own classes, whichever family it is of.

Each part is loaded only while in use. What one family does its own way is a small class, a `Family`, in the folder
families/; docs/adding-a-base.md shows how one is written.
"""

import gc
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.nn.attention import SDPBackend

from .. import backbones
from ..config import DEFAULT_BACKBONE, BaseConfig, SpeedConfig, UserError
from ..method.adapter import Site
from .architecture import HEAD, Architecture
from .bases import BASES
from .block_swapping import check_count, swap_blocks
from .family import Autoencoder, Family, PipelineDenoiser, TextEncoders
from .pipeline_folder import MINIATURE, Miniature, PipelineFolder
from .single_files import SingleFiles, flux_of
from .speed import ATTENTION, ON_CUDA_ALONE, check_four_bit, compile_blocks, quantize, set_attention
from .tiny_flux import TinyFlux

Loaded = TypeVar("Loaded")
Parts = PipelineFolder | TinyFlux  # of a base; none is loaded until it is asked for, and none is kept

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
CAPTION = 64  # tokens of a long caption
LONGEST_TEMPLATE = 64  # tokens that a family puts around a prompt, at most


@dataclass(frozen=True)
class Speed:
    """How a transformer is run."""

    compiled: bool = False
    attention: str = "auto"
    eight_bit: bool = False
    four_bit: bool = False
    swapped_blocks: int = 0  # how many are not on the device to stay

    def __post_init__(self) -> None:
        if self.attention not in ATTENTION:
            raise UserError(f"There is no attention called {self.attention!r}; choose one of: {', '.join(ATTENTION)}.")
        if self.eight_bit and self.four_bit:
            raise UserError("--eight-bit and --four-bit are two ways to keep the same weights: leave one out.")
        if self.compiled and self.swapped_blocks:
            raise UserError(
                "--compile and --swap-blocks do not go together: a compiled block would have to fetch its weights "
                "inside its graph. Leave one out."
            )

    @classmethod
    def of(cls, how: SpeedConfig) -> "Speed":
        """What the settings say."""
        return cls(how.compile, how.attention, how.eight_bit, how.four_bit, how.swap_blocks)

    def check(self, device: torch.device) -> None:
        """A UserError for what this device cannot do, or what is not installed."""
        if self.four_bit:
            check_four_bit()
        if self.attention in ON_CUDA_ALONE and device.type != "cuda":
            raise UserError(
                f"--attention {self.attention} needs an NVIDIA GPU, and the base runs on {device}. Leave it out."
            )

    @property
    def weights(self) -> str | None:
        """The numbers that the blocks' weights are kept in; None: the backbone's own."""
        return "int8" if self.eight_bit else "nf4" if self.four_bit else None

    def __str__(self) -> str:
        ways = {"compiled blocks": self.compiled, "8-bit weights": self.eight_bit, "4-bit weights": self.four_bit}
        ways |= {f"{self.swapped_blocks} blocks swapped": self.swapped_blocks > 0}
        return ", ".join([f"attention {self.attention}", *(way for way, chosen in ways.items() if chosen)])


AS_IT_IS = Speed()


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
        encoders = self.family.encoders(components, self.parts.settings)
        del components
        with lent(TextEncoders(self.family, encoders, self.max_tokens), "encoders") as loaded:
            del encoders
            yield loaded

    @contextmanager
    def autoencoder(self) -> Iterator[Autoencoder]:
        """In float32 whatever the backbone's precision: it is small, and sees each photo once."""
        with lean_imports(*self.family.unasked, *self.family.unasked_by_models):
            loaded = Autoencoder(self.parts.autoencoder(self.device, torch.float32))
        with lent(loaded, "vae"):
            yield loaded

    @contextmanager
    def denoiser(self) -> Iterator["PipelineDenoiser"]:
        """The frozen transformer."""
        self.speed.check(self.device)
        # Made ready in main memory where the card may not hold it as it comes.
        first = torch.device("cpu") if self.speed.weights or self.speed.swapped_blocks else self.device
        with lean_imports(*self.family.unasked, *self.family.unasked_by_models):
            network = self.parts.transformer(first, self.dtype).eval().requires_grad_(False)
        network = run_as(network, self.speed, self.device)
        loaded = PipelineDenoiser(self.family, network, self.parts.scheduler_config, self.parts.settings)
        del network
        with lent(loaded, "network"):
            yield loaded


def run_as(network: Any, speed: Speed, device: torch.device) -> Any:
    """The same network, made to run in this way, on the device but for the blocks that are swapped."""
    if speed.weights:
        quantize(network, speed.weights)
    if speed.attention != "auto":
        set_attention(network, speed.attention)
    if speed.compiled:
        compile_blocks(network)
    if not speed.swapped_blocks:
        return network.to(device)
    swap_blocks(network, speed.swapped_blocks, device)
    return network


def open_backbone(config: BaseConfig, how: SpeedConfig | None = None) -> PipelineBackbone:
    """The base that is named, to be run in this way; nothing is loaded yet: the parts are, when they are needed.

    A name is miniature, tiny, one of BASES, a diffusers folder or a hub name; single files take the place of its own
    weights.
    """
    files = config.single_files
    name = config.backbone
    if name is None:
        name = flux_of(files) if files else DEFAULT_BACKBONE
    parts = find_parts(name, files)
    own = "fp32" if isinstance(parts, TinyFlux | Miniature) else "bf16"
    precision = PRECISIONS[own if config.precision == "auto" else config.precision]
    speed = AS_IT_IS if how is None else Speed.of(how)
    backbone = PipelineBackbone(parts, choose_device(config.device), precision, speed)
    if speed.swapped_blocks:
        check_count(speed.swapped_blocks, len(backbone.architecture.blocks))
    speed.check(backbone.device)
    return backbone


def how_it_runs(backbone: PipelineBackbone) -> str:
    """A sentence."""
    kernel = attention_that_runs(backbone.speed, backbone.device, backbone.dtype)
    return f"the base runs in {str(backbone.dtype).removeprefix('torch.')}: {backbone.speed} ({kernel})"


def attention_that_runs(speed: Speed, device: torch.device, dtype: torch.dtype) -> str:
    """The kernel's name: what was asked for, or what torch chooses for FLUX's heads where that was "auto"."""
    if speed.attention != "auto":
        return speed.attention
    heads = torch.empty(1, 1, 64, HEAD, device=device, dtype=dtype)
    return SDPBackend(torch._fused_sdp_choice(heads, heads, heads)).name.lower()


def choose_device(name: str) -> torch.device:
    """auto: the first CUDA device, Apple's GPU, or the CPU."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.ones(1, device=device).item()  # the meta device makes tensors, but holds no numbers
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"--device {name} cannot be used here: {str(error).splitlines()[0]}. Try --device cpu."
        ) from error
    return device


def find_parts(name: str, files: Mapping[str, Path]) -> Parts:
    """Where the parts come from."""
    hub = BASES[name].hub if name in BASES else name
    if files:
        if name == "tiny":
            raise UserError("tiny is drawn from a seed: single files are not of it. Name their base with --backbone.")
        return SingleFiles(MINIATURE if name == "miniature" else hub, files)
    return Miniature() if name == "miniature" else TinyFlux() if name == "tiny" else PipelineFolder(hub)


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
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    try:
        yield
    finally:
        for name in hidden:
            del modules[name]
        if "transformers" in modules:
            _not_found.update(hidden)


@contextmanager
def lent(loaded: Loaded, part: str) -> Iterator[Loaded]:
    """It, whose part is let go in the end: the caller's variable outlives the context, the part's memory must not.

    The parts of a base together may not fit: each one's memory is given back before the next one is loaded.
    """
    try:
        yield loaded
    finally:
        delattr(loaded, part)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
