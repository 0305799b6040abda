"""A Meta-Down that starts where two looks at a person agree: against dense matrices, and on gradients made to order."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from stage_one import PEOPLE, latents_of
from test_first_gradients import found_by_two_processes
from torch import Tensor, nn
from toy import TOY_SITES, ToyDenoiser

from metalora.config import UserError
from metalora.method.adapter import Site, linears
from metalora.method.even_rows import ROW_LENGTH
from metalora.method.flow import flow_loss, generator_of
from metalora.method.input_directions import FOLLOWED, InputDirections
from metalora.method.ranks import ALONE, Ranks
from metalora.method.repeated_gradients import DAMPING, LOOKS, RepeatedGradients
from metalora.method.seen_by_heads import Seen, SeenByHeads

META_RANK = 3
LAYER = Site("layer", "0", 12, 7)
MEAN, OWN = 0, 5  # input directions: where every token is strong, and where people differ


def loss_of(name: str, look: int, denoiser: ToyDenoiser) -> Tensor:
    photos = torch.stack([latents_of(name, photo) for photo in range(3 * look, 3 * look + 3)])
    prompt = torch.randn(3, 8, generator=generator_of("prompt", name, look))
    return flow_loss(denoiser, photos, prompt, generator_of("toy", name, look))


def found_on(denoiser: ToyDenoiser, ranks: Ranks = ALONE) -> dict[str, Tensor]:
    inputs = InputDirections(TOY_SITES, seed=0, ranks=ranks)
    gradients = RepeatedGradients(TOY_SITES, inputs.by_site(), ranks=ranks)
    for person in PEOPLE[ranks.index :: ranks.count]:
        for which in range(LOOKS):
            with gradients.look(denoiser.network, which):
                loss_of(person.name, which, denoiser).backward()
        gradients.counted()
    return gradients.found(META_RANK)


def dense(denoiser: ToyDenoiser) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """By site: S from gradients as autograd gives them, and C from the layers' inputs."""
    modules = linears(denoiser.network, TOY_SITES)
    agreed = {site.name: torch.zeros(site.in_features, site.in_features).double() for site in TOY_SITES}
    inputs: dict[str, list[Tensor]] = {site.name: [] for site in TOY_SITES}

    def listened(sites: list[Site]) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(_module: nn.Module, args: tuple[Tensor, ...], _output: Tensor) -> None:
            for site in sites:
                inputs[site.name].append(args[0].detach().flatten(0, -2))

        return hook

    pairs: dict[str, list[tuple[Tensor, Tensor]]] = {site.name: [] for site in TOY_SITES}
    handles = [module.register_forward_hook(listened(sites)) for module, sites in modules]
    for person in PEOPLE:
        looks = []
        for which in range(LOOKS):
            weights = [module.weight.requires_grad_(True) for module, _ in modules]
            found = torch.autograd.grad(loss_of(person.name, which, denoiser), weights)
            looks.append(
                {s.name: g[s.rows].double() for (_, sites), g in zip(modules, found, strict=True) for s in sites}
            )
        for name in agreed:
            a, b = (look[name] for look in looks)
            length = ((a.square().sum() + b.square().sum()) / 2).sqrt()
            pairs[name].append((a / length, b / length))
    for name, found in pairs.items():
        for i, (a, _) in enumerate(found):
            for j, (_, b) in enumerate(found):
                sign = 1 if i == j else -1 / (len(found) - 1)
                agreed[name] += sign * (a.T @ b + b.T @ a) / 2
    for handle in handles:
        handle.remove()
    denoiser.network.requires_grad_(False)
    energy = {
        name: sum((x.double().T @ x.double() / len(x) for x in found), torch.zeros(())) / len(found)
        for name, found in inputs.items()
    }
    return agreed, energy


def test_the_rows_agree_most_for_the_change_that_they_cause(denoiser: ToyDenoiser):
    found = found_on(denoiser)
    agreed, energy = dense(denoiser)
    for name, rows in found.items():
        width = rows.shape[1]
        damped = energy[name] + DAMPING * energy[name].trace() / width * torch.eye(width)
        whole = torch.linalg.inv(torch.linalg.cholesky(damped))  # another square root of the same matrix
        best = (torch.linalg.eigh(whole @ agreed[name] @ whole.T).eigenvectors[:, -META_RANK:].T @ whole).double()
        projections = [torch.linalg.qr(one.T.double()).Q for one in (rows, best)]
        torch.testing.assert_close(*(q @ q.T for q in projections), rtol=0, atol=1e-4)
        # orthogonal, of one length, and inputs as strong along them as along fresh ones
        lengths = rows.double() @ rows.double().T
        torch.testing.assert_close(lengths, lengths[0, 0] * torch.eye(META_RANK).double(), rtol=0, atol=1e-5)
        along = (rows.double() @ energy[name] @ rows.double().T).trace().item() / META_RANK
        assert along == pytest.approx(ROW_LENGTH**2 * energy[name].trace().item() / width, rel=1e-3)


def gradient_of(look: int, person: int) -> tuple[Tensor, Tensor]:
    """x [tokens, 12] and dL/dy [tokens, 7]: a strong mean, with chance in its gradient, and a weak own direction."""
    generator = generator_of("made", person, look)
    x, delta = torch.zeros(2, 12), torch.randn(2, 7, generator=generator)
    x[0, MEAN] = 10.0
    x[1, OWN] = 1.0
    delta[1] = torch.randn(7, generator=generator_of("of", person))  # the same at every look
    noise = 0.3 * torch.randn(8, 12, generator=generator)
    return torch.cat([x, noise]), torch.cat([delta, torch.randn(8, 7, generator=generator)])


def made_to_order(gradients: RepeatedGradients | SeenByHeads, people: int = 200) -> None:
    network = nn.Sequential(nn.Linear(12, 7, bias=False)).requires_grad_(False)
    for person in range(people):
        for which in range(LOOKS):
            look = (
                gradients.look(network, which) if isinstance(gradients, RepeatedGradients) else gradients.look(network)
            )
            with look:
                x, delta = gradient_of(which, person)
                (network(x[None]) * delta).sum().backward()
        gradients.counted()


def test_what_is_the_persons_is_found_under_what_is_strong_everywhere():
    gradients = RepeatedGradients([LAYER], {"layer": torch.eye(12)})
    made_to_order(gradients)
    row = gradients.found(1)["layer"][0]
    assert (row[OWN] / row.norm()).abs() > 0.97
    # the mean of the inputs is what a gradient is strongest along
    strongest = torch.linalg.svd(torch.cat([d.T @ x for x, d in (gradient_of(0, n) for n in range(200))])).Vh[0]
    assert strongest[MEAN].abs() > 0.97


def seen_along(direction: int) -> Seen:
    rows = torch.zeros(1, 12)
    rows[0, direction] = 2.0  # however long
    view = SeenByHeads([LAYER], {"layer": rows})
    made_to_order(view)
    return view.seen()


def test_whose_it_is_what_heads_see():
    mean, own = seen_along(MEAN), seen_along(OWN)
    assert mean.held > 0.9
    assert abs(mean.own) < 0.1
    assert own.held < 0.05
    assert own.own > 0.5
    assert mean.input_energy > 10 > 1 > own.input_energy
    assert max(abs(mean.common), abs(own.common)) < 0.1


def test_what_is_everyones_is_told_from_what_is_a_persons():
    network = nn.Sequential(nn.Linear(12, 7, bias=False)).requires_grad_(False)
    view = SeenByHeads([LAYER], {"layer": torch.eye(12)})
    for person in range(50):
        own = torch.randn(7, generator=generator_of("of", person))
        for _ in range(LOOKS):
            with view.look(network):
                (network(torch.eye(12)[None]) * (own + torch.ones(7))).sum().backward()
        view.counted()
    seen = view.seen()
    assert (seen.held, seen.own + seen.common) == (pytest.approx(1), pytest.approx(1))
    assert 0.3 < seen.common < 0.7


def test_wide_inputs_are_followed_where_they_are_strong():
    width, strong = FOLLOWED + 40, 6
    network = nn.Sequential(nn.Linear(width, 3)).requires_grad_(False)
    basis = torch.linalg.qr(torch.randn(width, strong)).Q
    inputs = InputDirections([Site("wide", "0", width, 3), Site("also", "0", width, 3)], seed=0)
    with inputs.heard(network):
        for _ in range(2):
            for _ in range(20):
                network(torch.randn(30, strong) @ basis.T + 1e-3 * torch.randn(30, width))
            inputs.turn()
    columns = inputs.by_site()["wide"]
    assert columns.shape == (width, FOLLOWED)
    torch.testing.assert_close(columns.T @ columns, torch.eye(FOLLOWED), rtol=0, atol=1e-4)
    assert (columns.T @ basis).square().sum() > 0.999 * strong
    assert inputs.by_site()["also"] is columns


def test_narrow_inputs_are_kept_whole_and_the_network_as_it_was(denoiser: ToyDenoiser):
    before = {name: value.clone() for name, value in denoiser.network.state_dict().items()}
    inputs = InputDirections(TOY_SITES, seed=0)
    assert not inputs.wide
    torch.testing.assert_close(inputs.by_site()["block.out"], torch.eye(6))
    found_on(denoiser)
    assert all(torch.equal(value, before[name]) for name, value in denoiser.network.state_dict().items())
    assert not any(module._forward_hooks for module in denoiser.network.modules())


def test_more_directions_than_inputs_are_refused():
    with pytest.raises(UserError, match=r"layer has 12 inputs.*Lower --meta-rank"):
        RepeatedGradients([LAYER], {"layer": torch.eye(12)}).found(13)


def test_two_processes_find_what_one_finds(denoiser: ToyDenoiser, tmp_path: Path):
    two, one = found_by_two_processes("repeated", tmp_path / "found.pt"), found_on(denoiser)
    for name, rows in one.items():
        torch.testing.assert_close(two[name], rows, rtol=0, atol=1e-4)
