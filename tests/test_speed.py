"""What makes training faster or smaller leaves what is trained as it was: equal, or for 8 bits alike."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts
from trained import adapters_of, gradients, lora_trained_on

from metalora.backbones import speed
from metalora.backbones.pipeline import PipelineBackbone, Speed, attention_that_runs
from metalora.backbones.speed import EIGHT_BIT_PRODUCT, EightBitLinear, set_attention
from metalora.backbones.tiny_flux import TinyFlux
from metalora.config import UserError
from metalora.method.flow import generator_of

ASPECTS = ((8, 8), (6, 10), (10, 6), (4, 12), (12, 4))  # of latents: 16, 15 and 12 tokens


@pytest.mark.slow
def test_a_compiled_block_serves_all_of_its_kind_and_every_aspect_ratio(monkeypatch: pytest.MonkeyPatch):
    """Traced, but left to eager kernels, so that equality is exact; what inductor makes is a matter of rounding."""
    from torch._dynamo.testing import CompileCounter

    counter, compiled = CompileCounter(), nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self, **options: compiled(self, **options, backend=counter))
    slow, fast = (PipelineBackbone(TinyFlux(), torch.device("cpu"), torch.float32, Speed(compiled=on)) for on in (0, 1))
    adapters = adapters_of(slow)
    with slow.denoiser() as denoiser:
        expected = gradients(denoiser, adapters, ASPECTS)
    with fast.denoiser() as denoiser:
        assert torch.equal(gradients(denoiser, adapters, ASPECTS), expected)
    # A double and a single block, and each of them once more: the first one's input needs no gradient.
    assert counter.frame_count <= 4


def test_attention_kernels_agree_and_the_one_that_runs_is_named(tiny: PipelineBackbone):
    adapters = adapters_of(tiny)
    with tiny.denoiser() as denoiser:
        expected = gradients(denoiser, adapters)
        try:
            set_attention(denoiser.network, "math")
            torch.testing.assert_close(gradients(denoiser, adapters), expected, rtol=1e-3, atol=1e-5)
        finally:
            set_attention(denoiser.network, "auto")  # diffusers keeps the choice for all networks
    with pytest.raises(UserError, match="choose one of: auto, cudnn"):
        Speed(attention="fastest")
    with pytest.raises(UserError, match="--attention cudnn needs an NVIDIA GPU, and the base runs on cpu"):
        Speed(attention="cudnn").check(tiny.device)
    assert attention_that_runs(Speed(), tiny.device, tiny.dtype) == "flash_attention"
    assert attention_that_runs(Speed(attention="math"), tiny.device, tiny.dtype) == "math"


@pytest.mark.parametrize("in_eight_bits", [False, True])
def test_an_8_bit_layer_is_the_layer_up_to_a_percent_forward_and_backward(in_eight_bits: bool):
    generator = generator_of("layer")
    layer = nn.Linear(64, 48).requires_grad_(False)
    layer.weight.data.normal_(generator=generator)
    rounded = EightBitLinear(layer)
    rounded.eight_bit_products = in_eight_bits
    x, direction = torch.randn(2, 32, 64, generator=generator), torch.randn(2, 32, 48, generator=generator)
    x[0, 3] = 0  # a row that has no scale
    results = []
    for module in (layer, rounded):
        tokens = x.clone().requires_grad_()
        out = module(tokens)
        (out * direction).sum().backward()
        results.append((out.detach(), tokens.grad))
    for one, other in zip(*results, strict=True):
        assert 0 < (one - other).norm() / one.norm() < (0.02 if in_eight_bits else 0.01)


def test_8_bit_products_are_traced_in_layers_that_share_an_input():
    """As q, k and v do, with a number of tokens that is only a name: what --eight-bit --compile asks for on CUDA."""
    generator = generator_of("layers")
    layers = nn.ModuleList(EightBitLinear(nn.Linear(64, 48).requires_grad_(False)) for _ in range(2))
    for layer in layers:
        layer.eight_bit_products = True

    def forward(x: torch.Tensor) -> torch.Tensor:
        return layers[0](x) + layers[1](x)

    compiled = torch.compile(forward, fullgraph=True, dynamic=True, backend="aot_eager")
    for count in (32, 40):
        tokens = torch.randn(1, count, 64, generator=generator)
        results = []
        for function in (forward, compiled):
            x = tokens.clone().requires_grad_()
            function(x).square().sum().backward()
            results.append(x.grad)
        torch.testing.assert_close(*results)
        assert results[0].norm() > 0


def test_a_selective_checkpoint_keeps_8_bit_products():
    layer, counted = EightBitLinear(nn.Linear(64, 48).requires_grad_(False)), []
    layer.eight_bit_products = True
    keep = [CheckpointPolicy.MUST_SAVE, CheckpointPolicy.PREFER_SAVE]

    def policy(context: object, operation: object, *inputs: object, **options: object) -> CheckpointPolicy:
        decided = speed._policy(context, operation, *inputs, **options)
        if operation is EIGHT_BIT_PRODUCT:
            counted.append(decided in keep)
        return decided

    x = torch.randn(1, 32, 64, generator=generator_of("x"), requires_grad=True)
    context = partial(create_selective_checkpoint_contexts, policy)
    checkpoint(layer, x, use_reentrant=False, context_fn=context).square().sum().backward()
    kept, x.grad = x.grad, None
    layer(x).square().sum().backward()
    assert counted
    assert all(counted)
    assert torch.equal(kept, x.grad)


@pytest.mark.parametrize("in_eight_bits", [False, True], ids=["weights", "products"])
def test_a_lora_trained_through_8_bits_is_alike(tiny: PipelineBackbone, in_eight_bits: bool):
    small = PipelineBackbone(TinyFlux(), tiny.device, tiny.dtype, Speed(eight_bit=True))
    likeness = torch.cosine_similarity(lora_trained_on(small, in_eight_bits), lora_trained_on(tiny), dim=0).item()
    print(f"cosine of what was learned, {'products' if in_eight_bits else 'weights'} in 8 bits: {likeness:.4f}")
    assert likeness > 0.98
    assert small.fingerprint("transformer") != tiny.fingerprint("transformer")
    assert small.fingerprint("autoencoder") == tiny.fingerprint("autoencoder")
