"""NF4 weights: what they round, what they give back, and what is learned through them."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from trained import lora_trained_on

from metalora.backbones.pipeline import PipelineBackbone, Speed
from metalora.backbones.speed import BLOCK, FourBitLinear, widened
from metalora.backbones.tiny_flux import TinyFlux
from metalora.config import UserError
from metalora.method.flow import generator_of

# QLoRA, appendix E.
NF4 = [-1.0, -0.6961928, -0.5250731, -0.3949175, -0.2844414, -0.1847734, -0.0910500, 0.0]
NF4 += [0.0795803, 0.1609302, 0.2461123, 0.3379152, 0.4407098, 0.5626170, 0.7229568, 1.0]


def layer(dtype: torch.dtype = torch.float32) -> nn.Linear:
    made = nn.Linear(192, 48).requires_grad_(False)
    made.weight.data.normal_(generator=generator_of("layer"))
    made.bias.data.normal_(generator=generator_of("bias"))
    made.weight.data[0, :BLOCK] = 0  # a block that has no scale
    return made.to(dtype)


def dense(packed: FourBitLinear, dtype: torch.dtype) -> Tensor:
    return widened(packed.weight, packed.scale, (packed.out_features, packed.in_features), dtype)


def test_each_weight_becomes_the_nearest_of_the_codes_times_its_blocks_largest():
    pytest.importorskip("bitsandbytes")
    original = layer()
    blocks = original.weight.view(-1, BLOCK)
    largest = blocks.abs().amax(dim=1, keepdim=True)
    found = dense(FourBitLinear(original), torch.float32).view(-1, BLOCK)
    nearest = (blocks[..., None] / largest.clamp_min(1e-12)[..., None] - torch.tensor(NF4)).abs().amin(dim=-1)
    torch.testing.assert_close((found - blocks).abs(), nearest * largest, rtol=1e-4, atol=1e-5)
    assert (found[0] == 0).all()
    widest_gap = max(high - low for low, high in pairwise(NF4))
    assert ((found - blocks).abs() <= (widest_gap / 2 + 1e-5) * largest).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_forward_and_backward_are_those_of_the_widened_weights(dtype: torch.dtype):
    pytest.importorskip("bitsandbytes")
    packed, plain = FourBitLinear(layer(dtype)), layer(dtype)
    plain.weight.data = dense(packed, dtype)
    x = torch.randn(2, 5, 192, generator=generator_of("x")).to(dtype)
    direction = torch.randn(2, 5, 48, generator=generator_of("direction")).to(dtype)
    results = []
    for module in (plain, packed):
        tokens = x.clone().requires_grad_()
        out = module(tokens)
        (out * direction).sum().backward()
        results.append((out.detach(), tokens.grad))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


def test_backward_keeps_nothing_but_the_packed_weights():
    pytest.importorskip("bitsandbytes")
    packed, kept = FourBitLinear(layer()), []
    x = torch.randn(5, 192, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        packed(x)
    assert {t.data_ptr() for t in kept} == {packed.weight.data_ptr(), packed.scale.data_ptr()}


def test_a_lora_trained_through_4_bits_is_alike(tiny: PipelineBackbone):
    pytest.importorskip("bitsandbytes")
    small = PipelineBackbone(TinyFlux(), tiny.device, tiny.dtype, Speed(four_bit=True))
    likeness = torch.cosine_similarity(lora_trained_on(small), lora_trained_on(tiny), dim=0).item()
    print(f"cosine of what was learned, weights in 4 bits: {likeness:.4f}")
    assert likeness > 0.9  # 0.94 when it was written; the tiny FLUX's random weights are hard to round
    eight = PipelineBackbone(TinyFlux(), tiny.device, tiny.dtype, Speed(eight_bit=True))
    assert len({base.fingerprint("transformer") for base in (tiny, small, eight)}) == 3


def test_without_bitsandbytes_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("metalora.backbones.speed.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install bitsandbytes"):
        Speed(four_bit=True).check(torch.device("cpu"))
