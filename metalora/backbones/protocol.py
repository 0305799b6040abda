"""What every backbone offers, whichever model and library stand behind it."""

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch import Tensor, nn

from ..config import Step
from ..method.adapter import Site
from .architecture import Architecture

Prompt = dict[str, Tensor]  # its embeddings by name, each [b, ...]: what they are is the denoiser's affair


class Autoencoder(Protocol):
    """Images [3, H, W] in 0..1 <-> latents [c, H/8, W/8] as the denoiser wants them, on the CPU.

    What is decoded may be several of one size at once, with a leading dimension.
    """

    def encode(self, image: Tensor) -> Tensor: ...
    def decode(self, latents: Tensor) -> Tensor: ...


class Denoiser(Protocol):
    """The frozen network, ready to be trained through and sampled from."""

    network: nn.Module  # takes the adapters

    def __call__(self, latents: Tensor, t: Tensor, prompt: Prompt, guidance: float = 1.0) -> Tensor:
        """The velocity [b, c, h, w] in float32 at times t [b]; guidance is 1 while training."""
        ...

    def checkpointing(self, how: int) -> None:
        """What is computed again in backward instead of kept: `Checkpointing`; who cannot select takes all."""
        ...

    def sample(
        self, prompt: Prompt, size: tuple[int, int], steps: int, guidance: float, seeds: Sequence[int]
    ) -> Generator[Step, None, Tensor]:
        """Yield after each sampling step and return latents [n, c, h, w] of images of size (width, height).

        Each image's noise is that of its own seed; prompt is one for all, or n.
        """
        ...


class Backbone(Protocol):
    """A base model in its parts. Each part is loaded on entering its context and freed on leaving it."""

    device: torch.device
    dtype: torch.dtype

    @property
    def multiple(self) -> int:
        """Image sides must be multiples of this."""
        ...

    @property
    def architecture(self) -> Architecture:
        """Its name and its sites."""
        ...

    @property
    def name(self) -> str:
        """Of the architecture, as files name it: "flux.1-dev"."""
        ...

    @property
    def max_tokens(self) -> int:
        """Of a prompt."""
        ...

    @property
    def caption_tokens(self) -> int:
        """What a caption takes, for memory estimates: `max_tokens` where every prompt is filled up to it."""
        ...

    def unread(self, prompt: str) -> str:
        """The end of the prompt that lies behind `max_tokens`, which nobody reads; empty where all is read."""
        ...

    def sites(self, preset: str) -> list[Site]: ...
    def fingerprint(self, part: str) -> str:
        """What the outputs of "text_encoders" or "autoencoder" depend on: part of every cache key."""
        ...

    def text_encoders(self) -> AbstractContextManager[Callable[[str], Prompt]]: ...
    def autoencoder(self) -> AbstractContextManager[Autoencoder]: ...
    def denoiser(self) -> AbstractContextManager[Denoiser]: ...
