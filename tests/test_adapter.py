"""Laws of the three-layer adapter, on the toy network: plain layers, slices of a fused one, a vector input."""

import pytest
import torch
from torch import Tensor
from toy import TOY_SITES, ToyNetwork

from metalora.config import UserError
from metalora.method.adapter import Adapter, Adapters, Site, fold_all, merged, new_adapters, random_meta_down
from metalora.method.stacks import stacked

DRAWN = torch.Generator().manual_seed(0)
INPUTS = {
    "tokens": torch.randn(3, 5, 8, generator=DRAWN),
    "vector": torch.randn(3, 8, generator=DRAWN),
}


def made(meta: bool, rank: int = 2, identities: int = 1, trained: bool = True, scale: float = 0.7) -> Adapters:
    generator = torch.Generator().manual_seed(1)
    meta_down = random_meta_down(TOY_SITES, 16, generator) if meta else None
    own = [new_adapters(TOY_SITES, rank, generator, meta_down=meta_down, scale=scale) for _ in range(identities)]
    adapters = stacked(own)
    if trained:
        for weight in adapters.parameters(("up",)):
            weight.data = torch.randn(weight.shape, generator=generator)
    return adapters


def adapted(network: ToyNetwork, adapters: Adapters, inputs: dict[str, Tensor] = INPUTS) -> Tensor:
    with adapters.attached(network):
        return network(**inputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("meta", [True, False])
def test_a_new_adapter_changes_nothing(toy: ToyNetwork, meta: bool, dtype: torch.dtype):
    toy, inputs = toy.to(dtype), {name: x.to(dtype) for name, x in INPUTS.items()}
    assert torch.equal(adapted(toy, made(meta, trained=False), inputs), toy(**inputs))


@pytest.mark.parametrize("identities", [1, 3])
def test_a_fresh_mid_is_the_identity_where_it_has_nothing_to_choose_and_drawn_where_it_has(identities: int):
    chosen, whole = made(meta=True, rank=15, identities=identities), made(meta=True, rank=16, identities=identities)
    for name, adapter in whole.by_name.items():
        shape = (16, 16) if identities == 1 else (3, 16, 16)
        assert torch.equal(adapter.mid, torch.eye(16).expand(shape))
        drawn = chosen.by_name[name].mid
        assert (drawn != 0).all()
        assert drawn.abs().max() <= 16**-0.5
    assert torch.equal(whole.by_name["block.out"].down, chosen.by_name["block.out"].down)


@pytest.mark.parametrize("rank", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("meta", [True, False])
def test_the_merged_lora_is_the_adapter(toy: ToyNetwork, meta: bool, rank: int):
    adapters = made(meta, rank)
    live = adapted(toy, adapters)
    for site in TOY_SITES:
        lora_down, lora_up = fold_all(adapters)[site.name]
        assert lora_down.shape == (rank, site.in_features)
        toy.get_submodule(site.module).weight.data[site.rows] += lora_up @ lora_down
    torch.testing.assert_close(toy(**INPUTS), live, rtol=0, atol=1e-5 * live.abs().max().item())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.1)])
@pytest.mark.parametrize("meta", [True, False])
def test_merged_for_a_while_the_model_computes_as_with_the_adapters(
    toy: ToyNetwork, meta: bool, dtype: torch.dtype, tolerance: float
):
    adapters, toy, inputs = made(meta), toy.to(dtype), {name: x.to(dtype) for name, x in INPUTS.items()}
    plain, live = toy(**inputs), adapted(toy, adapters, inputs)
    state = {name: value.clone() for name, value in toy.state_dict().items()}
    with merged(adapters, toy):
        assert (toy(**inputs) - live).norm() / (live - plain).norm() < tolerance
    with pytest.raises(RuntimeError, match="in the middle"), merged(adapters, toy):
        raise RuntimeError("in the middle")
    assert all(torch.equal(value, state[name]) for name, value in toy.state_dict().items())


def test_detaching_leaves_the_model_as_it_was_also_after_an_error(toy: ToyNetwork):
    before, state = toy(**INPUTS), {name: value.clone() for name, value in toy.state_dict().items()}
    with pytest.raises(RuntimeError, match="in the middle"), made(meta=True).attached(toy):
        raise RuntimeError("in the middle")
    assert torch.equal(toy(**INPUTS), before)
    assert all(torch.equal(value, state[name]) for name, value in toy.state_dict().items())


def test_a_site_that_does_not_exist_is_named(toy: ToyNetwork):
    sites = [Site("a", "no.such", 8, 6), Site("b", "qkv", 8, 6, start=18), Site("c", "out", 6, 8)]
    adapters = new_adapters(sites, 1, torch.Generator())
    with pytest.raises(UserError, match=r"2 sites: no\.such is missing; qkv is 8 -> 18"), adapters.attached(toy):
        pass
    assert not toy.out._forward_hooks


def one_of(stack: Adapters, row: int) -> Adapters:
    """Identity `row` of a stack, alone."""
    meta, rank = stack.by_name["block.out"].mid is not None, stack.by_name["block.out"].up.shape[-1]
    alone = made(meta, rank)
    for name, adapter in alone.by_name.items():
        for role, weight in adapter.weights().items():
            stacked = stack.by_name[name].weights()[role].detach()
            weight.data = (stacked[row] if stacked.ndim == 3 else stacked).clone()
    return alone


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("meta", [True, False])
def test_a_stack_of_identities_equals_single_adapters_forward_and_gradients(toy: ToyNetwork, meta: bool, rank: int):
    stack, rows = made(meta, rank, identities=4), torch.tensor([2, 0, 2])
    with stack.using(rows):
        together = adapted(toy, stack)
    together.square().sum().backward()
    expected = {name: torch.zeros_like(weight) for name, weight in stack.tensors().items()}
    for sample, row in enumerate(rows.tolist()):
        single = one_of(stack, row)
        alone = adapted(toy, single, {name: x[sample : sample + 1] for name, x in INPUTS.items()})
        torch.testing.assert_close(together[sample : sample + 1], alone)
        alone.square().sum().backward()
        for name, adapter in single.by_name.items():
            for role, weight in adapter.weights().items():
                slot = expected[f"{name}.{role}"]
                (slot[row] if slot.ndim == 3 else slot).add_(weight.grad)
    for name, adapter in stack.by_name.items():
        for role, weight in adapter.weights().items():
            torch.testing.assert_close(weight.grad, expected[f"{name}.{role}"])
    assert not stack.by_name["block.to_q"].up.grad[[1, 3]].any(), "an absent identity has no gradient"


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 0.01)])
@pytest.mark.parametrize("moving", [True, False], ids=["Meta-Down moves", "Meta-Down is frozen"])
@pytest.mark.parametrize("rank", [1, 2])
def test_stacks_are_equation_1_and_its_gradients_in_fp64(rank: int, moving: bool, dtype: torch.dtype, tolerance: float):
    drawn = torch.Generator().manual_seed(2)

    def matrix(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=drawn).to(dtype)  # numbers that every precision has

    down, mid, up = matrix(16, 24), matrix(3, rank, 16), matrix(3, 20, rank)
    x, gradient = matrix(3, 50, 24), matrix(3, 50, 20)
    adapter = Adapter(down.float(), mid.float(), up.float(), scale=0.5)
    adapter.down.requires_grad_(moving)
    x.requires_grad_()
    adapter(x).backward(gradient)
    exact = [part.detach().double().requires_grad_() for part in (down, mid, up, x)]
    added = 0.5 * torch.einsum("bor,brm,mi,bni->bno", exact[2], exact[1], exact[0], exact[3])
    added.backward(gradient.double())
    found = [adapter(x), adapter.mid.grad, adapter.up.grad, x.grad]
    expected = [added, *(part.grad for part in exact[1:])]
    if moving:
        found, expected = [*found, adapter.down.grad], [*expected, exact[0].grad]
    else:
        assert adapter.down.grad is None
    for was, meant in zip(found, expected, strict=True):
        assert (was.double() - meant).norm() <= tolerance * meant.norm()


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("meta", [True, False])
def test_gradients_match_a_finite_difference_in_fp64(toy: ToyNetwork, meta: bool, rank: int):
    toy, adapters = toy.double(), made(meta, rank)
    inputs = {name: x.double() for name, x in INPUTS.items()}
    for adapter in adapters.by_name.values():
        adapter.double()
    target = torch.randn(3, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))

    def loss() -> Tensor:
        return (adapted(toy, adapters, inputs) - target).square().mean()

    loss().backward()
    step = 1e-6
    for weight in adapters.parameters():
        for index in range(0, weight.numel(), 7):
            flat, gradient = weight.data.view(-1), weight.grad.view(-1)[index]
            flat[index] += step
            above = loss().item()
            flat[index] -= 2 * step
            below = loss().item()
            flat[index] += step
            assert abs((above - below) / (2 * step) - gradient) < 1e-8 + 1e-6 * abs(gradient)
