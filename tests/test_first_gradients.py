"""A Meta-Down that starts at people's first gradients: against an SVD of the gradients that autograd gives."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from stage_one import PEOPLE, latents_of
from toy import TOY_SITES, ToyDenoiser, ToyNetwork

from metalora.config import UserError
from metalora.method.adapter import Adapters, linears, new_adapters
from metalora.method.even_rows import ROW_LENGTH
from metalora.method.first_gradients import TURNS, FirstGradients, Found, random_directions
from metalora.method.flow import flow_loss, generator_of
from metalora.method.ranks import ALONE, Ranks

META_RANK = 3


def loss_of(name: str, denoiser: ToyDenoiser) -> torch.Tensor:
    photos = torch.stack([latents_of(name, photo) for photo in range(4)])
    prompt = torch.randn(4, 8, generator=generator_of("prompt", name))
    return flow_loss(denoiser, photos, prompt, generator_of("toy", name))


def found_on(denoiser: ToyDenoiser, turns: int = TURNS, ranks: Ranks = ALONE) -> Found:
    gradients = FirstGradients(TOY_SITES, random_directions(TOY_SITES, META_RANK, seed=0), ranks=ranks)
    with gradients.heard(denoiser.network):
        for turn in range(turns):
            if turn:
                gradients.turn()
            for person in PEOPLE[ranks.index :: ranks.count]:
                loss_of(person.name, denoiser).backward()
                gradients.counted()
    return gradients.found(META_RANK)


def stacked_gradients(denoiser: ToyDenoiser) -> dict[str, torch.Tensor]:
    """Everyone's dL/dW one below the other, each of norm 1, from weights that are trained as usual."""
    modules = linears(denoiser.network, TOY_SITES)
    stacks: dict[str, list[torch.Tensor]] = {site.name: [] for site in TOY_SITES}
    for person in PEOPLE:
        weights = [module.weight.requires_grad_(True) for module, _ in modules]
        gradients = torch.autograd.grad(loss_of(person.name, denoiser), weights)
        for (_, sites), gradient in zip(modules, gradients, strict=True):
            for site in sites:
                stacks[site.name].append(gradient[site.rows] / gradient[site.rows].norm())
    denoiser.network.requires_grad_(False)
    return {name: torch.cat(stack).double() for name, stack in stacks.items()}


def test_the_rows_span_the_top_right_singular_vectors(denoiser: ToyDenoiser):
    found = found_on(denoiser, turns=20)
    shares = []
    for name, stack in stacked_gradients(denoiser).items():
        _, strengths, directions = torch.linalg.svd(stack, full_matrices=False)
        best = directions[:META_RANK]
        rows = found.meta_down[name].double() / ROW_LENGTH
        torch.testing.assert_close(rows.T @ rows, best.T @ best, rtol=0, atol=1e-4)
        shares.append((strengths[:META_RANK].square().sum() / strengths.square().sum()).item())
    assert found.held == pytest.approx(sum(shares) / len(shares), abs=1e-4)


def test_the_few_turns_that_are_made_find_nearly_as_much(denoiser: ToyDenoiser):
    assert found_on(denoiser).held == pytest.approx(found_on(denoiser, turns=20).held, rel=0.02)


def test_the_first_step_of_plain_heads_goes_further_than_from_other_directions(denoiser: ToyDenoiser):
    """What it is for: one gradient step on someone who was not looked at."""

    def gained(meta_down: dict[str, torch.Tensor]) -> float:
        adapters = new_adapters(TOY_SITES, META_RANK, generator_of("heads"), meta_down=meta_down)
        for adapter in adapters.by_name.values():
            adapter.mid.data = torch.eye(META_RANK)
        return lowered(denoiser, adapters)

    found = found_on(denoiser).meta_down
    for seed in range(5):
        other = {
            name: torch.linalg.qr(torch.randn(rows.shape[1], META_RANK, generator=generator_of(seed))).Q.T * ROW_LENGTH
            for name, rows in found.items()
        }
        assert gained(found) > gained(other) > 0


def lowered(denoiser: ToyDenoiser, adapters: Adapters) -> float:
    """By how much one small gradient step of the up matrices lowers a new person's loss."""
    with adapters.attached(denoiser.network):
        before = loss_of("somebody new", denoiser)
        before.backward()
        for adapter in adapters.by_name.values():
            adapter.up.data -= 0.01 * adapter.up.grad
        return (before - loss_of("somebody new", denoiser)).item()


def test_the_network_is_left_as_it_was(toy: ToyNetwork):
    toy.requires_grad_(False)
    before = {name: value.clone() for name, value in toy.state_dict().items()}
    found_on(ToyDenoiser(toy))
    assert all(torch.equal(value, before[name]) for name, value in toy.state_dict().items())
    assert all(weight.grad is None and not weight.requires_grad for weight in toy.parameters())
    assert not any(module._forward_hooks for module in toy.modules())


def test_more_directions_than_inputs_are_refused():
    with pytest.raises(UserError, match=r"block.out has 6 inputs.*Lower --meta-rank"):
        random_directions(TOY_SITES, 7, seed=0)


def found_by_two_processes(what: str, file: Path) -> dict:
    """What distributed_gradients.py writes."""
    here = Path(__file__).parent
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "PYTHONPATH": f"{here}{os.pathsep}{here.parent}", "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [*command, str(here / "distributed_gradients.py"), what, str(file)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    return torch.load(file)


def test_two_processes_find_what_one_finds(denoiser: ToyDenoiser, tmp_path: Path):
    two, one = found_by_two_processes("shared", tmp_path / "found.pt"), found_on(denoiser)
    assert two["held"] == pytest.approx(one.held, rel=1e-5)
    for name, rows in one.meta_down.items():
        torch.testing.assert_close(two["meta_down"][name], rows, rtol=0, atol=1e-4)
