"""Fixtures that several tests share."""

import pytest
import torch
from toy import ToyDenoiser, ToyNetwork


@pytest.fixture
def toy() -> ToyNetwork:
    torch.manual_seed(0)
    return ToyNetwork().requires_grad_(False)


@pytest.fixture
def denoiser(toy: ToyNetwork) -> ToyDenoiser:
    return ToyDenoiser(toy)
