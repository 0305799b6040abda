"""The miniature's autoencoder: its losses, its scale, its wider twin and its training that can stop."""

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from tools.miniature import autoencoder, train_autoencoder
from tools.miniature.photos import to_pixels, to_signal
from tools.miniature.training import Training, learning_rate


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


def test_it_has_fluxs_latents():
    latent = autoencoder.new_autoencoder().encode(torch.zeros(1, 3, 64, 48)).latent_dist.mean
    assert latent.shape == (1, 16, 8, 6)


def test_a_perfect_reconstruction_costs_nothing_and_a_worse_one_more():
    real = torch.rand(2, 3, 32, 32) * 2 - 1
    near, far = real + 0.05 * torch.randn_like(real), real + 0.2 * torch.randn_like(real)
    assert autoencoder.reconstruction_loss(real, real) == 0
    assert 0 < autoencoder.reconstruction_loss(near, real) < autoencoder.reconstruction_loss(far, real)


def test_unit_noise_has_no_kl():
    assert autoencoder.kl_loss(torch.zeros(3), torch.zeros(3)) == 0
    assert autoencoder.kl_loss(torch.ones(3), torch.zeros(3)) == pytest.approx(0.5)


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


def test_bytes_survive_the_way_to_the_network_and_back():
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(1, 3, 16, 16)
    assert np.array_equal(to_pixels(to_signal(pixels))[0], pixels[0].permute(1, 2, 0).numpy())


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

    def training(name: str) -> Training:
        return train_autoencoder.start(tmp_path / name, 4, torch.device("cpu"))

    whole = [step.figures["loss"] for step in training("whole.pt").run(loss)]
    first = training("parts.pt")
    steps = first.run(loss)
    parts = [next(steps).figures["loss"], next(steps).figures["loss"]]
    first.save()
    parts += [step.figures["loss"] for step in training("parts.pt").run(loss)]
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


def test_rough_noise_has_its_own_strength_for_every_photo_and_a_share_of_the_deviation():
    latents = 3 * torch.randn(400, 16, 8, 8, generator=torch.Generator().manual_seed(1))
    noise = train_autoencoder.rough_noise(latents, 0.2, torch.Generator().manual_seed(2))
    strengths = noise.std(dim=(1, 2, 3)) / 3
    # |normal| has a root mean square of 1, comes near 0 and goes beyond 2.
    assert strengths.square().mean().sqrt().item() == pytest.approx(0.2, rel=0.1)
    assert strengths.min() < 0.05 * 0.2
    assert strengths.max() > 2 * 0.2
