"""The miniature's autoencoder: its losses, its scale, its wider twin and its training that can stop."""

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from runs import losses_around_a_stop

from tools.miniature import autoencoder, train_autoencoder
from tools.miniature.photos import to_signal
from tools.miniature.training import learning_rate


def tiny() -> AutoencoderKL:
    torch.manual_seed(0)
    small = {"block_out_channels": (4, 8, 16, 16), "norm_num_groups": 2}
    model = AutoencoderKL(**autoencoder.CONFIG | small).eval()
    for weight in model.parameters():  # biases and scales that are not their defaults
        weight.data += 0.1 * torch.randn_like(weight)
    return model


@torch.no_grad()
def through(model: AutoencoderKL, picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    latent = model.encode(picture).latent_dist.mean
    return latent, model.decode(latent).sample


def test_psnr_of_a_known_error():
    real = to_signal(torch.full((1, 3, 8, 8), 100, dtype=torch.uint8))
    made = to_signal(torch.full((1, 3, 8, 8), 120, dtype=torch.uint8))
    assert autoencoder.psnr(made, real).item() == pytest.approx(20 * np.log10(255 / 20), abs=1e-3)


def test_rescaled_latents_make_the_same_picture():
    model, picture = tiny(), torch.rand(1, 3, 32, 32) * 2 - 1
    latent, before = through(model, picture)
    autoencoder.rescale_latents(model, 0.5)
    scaled, after = through(model, picture)
    torch.testing.assert_close(scaled, latent / (0.3611 * 0.5))
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)


def test_the_learning_rate_warms_up_stays_and_goes_down():
    rates = [learning_rate(step, 1000, 1.0, warm_up=100) for step in range(1000)]
    assert rates[0] == 0.01
    assert rates[500] == 1.0
    assert rates[874] == pytest.approx(0.5, abs=0.01)
    assert rates[-1] <= 0.02


@pytest.fixture
def pixels(monkeypatch) -> torch.Tensor:
    """Photos that are as small as the autoencoder that learns from them."""
    monkeypatch.setattr(train_autoencoder, "new_autoencoder", tiny)
    monkeypatch.setattr(train_autoencoder, "CROP", 16)
    return torch.randint(256, (8, 3, 24, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_a_stopped_training_goes_on_as_if_it_had_not_stopped(tmp_path, pixels):
    loss = train_autoencoder.loss_on(pixels)
    whole, parts = losses_around_a_stop(
        lambda name: train_autoencoder.start(tmp_path / name, 4, torch.device("cpu")), lambda one: one.run(loss)
    )
    assert parts == pytest.approx(whole, rel=1e-4)


def test_a_decoder_alone_learns_on_latents_that_stay(tmp_path, pixels):
    training = train_autoencoder.start(tmp_path / "state.pt", 8, torch.device("cpu"))
    steps = training.run(train_autoencoder.loss_on(pixels))
    for _ in range(3):
        next(steps)
    picture = to_signal(pixels[:2, :, :16, :16])
    latents, pictures = through(training.averaged(), picture)
    train_autoencoder.fix_encoder(training)
    assert len(list(steps)) == 5
    again, other = through(training.averaged(), picture)
    assert torch.equal(latents, again)
    assert not torch.allclose(pictures, other)
