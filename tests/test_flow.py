"""Laws of the path, the times and the random numbers."""

import pytest
import torch

from metalora.method.flow import Times, flow_loss, generator_of, joined, noised, shifted, velocity


def test_the_path_starts_clean_ends_in_noise_and_moves_at_the_velocity_which_costs_nothing():
    clean, noise = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    assert torch.equal(noised(clean, noise, torch.zeros(2)), clean)
    torch.testing.assert_close(noised(clean, noise, torch.ones(2)), noise)
    early, late = torch.tensor([0.2, 0.5]), torch.tensor([0.3, 0.6])
    moved = (noised(clean, noise, late) - noised(clean, noise, early)) / 0.1
    torch.testing.assert_close(moved, velocity(clean, noise), rtol=1e-4, atol=1e-5)
    latents = torch.randn(2, 4, 4, 4)
    loss = flow_loss(
        lambda x, t, _: (x - latents) / t.view(-1, 1, 1, 1), latents, None, torch.Generator().manual_seed(0)
    )
    assert loss < 1e-9


@pytest.mark.parametrize("kind", ["logit-normal", "uniform"])
def test_times_of_every_kind_have_their_median_and_a_shift_below_one_moves_them_towards_detail(kind: str):
    t, moved = (Times(kind, shift).draw(20_000, torch.Generator().manual_seed(0)) for shift in (1.0, 1 / 3))
    assert 0 < t.min() < t.max() < 1
    assert abs(t.median() - 0.5) < 0.01
    torch.testing.assert_close(moved, shifted(t, 1 / 3))
    assert (moved < t).all()


def test_logit_normal_times_are_the_sigmoid_of_a_standard_normal():
    logits = Times("logit-normal").draw(50_000, torch.Generator().manual_seed(0)).logit()
    assert abs(logits.mean()) < 0.02
    assert abs(logits.std() - 1) < 0.02


def test_a_shift_keeps_the_ends_and_its_inverse_undoes_it():
    t = torch.linspace(0, 1, 11)
    assert shifted(t, 3.0)[0] == 0
    assert shifted(t, 3.0)[-1] == 1
    torch.testing.assert_close(shifted(shifted(t, 3.0), 1 / 3.0), t)


def test_a_generator_depends_on_its_key_alone():
    first = torch.rand(5, generator=generator_of(7, "noise", 3))
    assert torch.equal(first, torch.rand(5, generator=generator_of(7, "noise", 3)))
    others = [(7, "noise", 4), (8, "noise", 3), (7, "crops", 3)]
    assert all(not torch.equal(first, torch.rand(5, generator=generator_of(*key))) for key in others)


def test_prompts_of_several_lengths_are_filled_up_and_a_mask_says_which_tokens_are_real():
    long, short = ({"tokens": torch.ones(1, n, 3), "pooled": torch.full((1, 2), float(n))} for n in (4, 2))
    together = joined([long, short, long])
    assert together["tokens"].shape == (3, 4, 3)
    assert together["tokens"][1, 2:].count_nonzero() == 0
    assert together["tokens_mask"].tolist() == [[True] * 4, [True, True, False, False], [True] * 4]
    assert together["pooled"][:, 0].tolist() == [4, 2, 4]
    assert joined([long, long]).keys() == long.keys(), "of one length, no mask is needed"
