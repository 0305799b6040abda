"""What Meta-LoRA spares: a frozen Meta-Down lets every adapted layer forget its input. Counted on diffusers' blocks."""

import pytest
import torch
from diffusers import FluxTransformer2DModel
from torch import Tensor, nn

from metalora.backbones.families.flux import FluxShape, transformer_config
from metalora.backbones.family import positions
from metalora.config import PersonalizeConfig
from metalora.jobs.memory import activation_numbers
from metalora.method.adapter import Adapters, new_adapters, random_meta_down
from metalora.method.flow import generator_of
from metalora.method.personalize import new_optimizer

TEXT, IMAGE = 64, 1024  # 1,088 tokens
BF16 = torch.bfloat16  # as bases are trained through; rotary embedding and norms keep some of it in float32


def kept_for_backward(model: nn.Module, own: list[Tensor], forward) -> dict[int, Tensor]:
    """Storage address -> a tensor on it, for everything a forward pass saves beside the weights."""
    weights = {w.untyped_storage().data_ptr() for w in [*model.parameters(), *own]}
    kept: dict[int, Tensor] = {}

    def remember(tensor: Tensor) -> Tensor:
        address = tensor.untyped_storage().data_ptr()
        if address not in weights:
            kept[address] = tensor  # holding it keeps its address from being used again
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
        forward()
    return kept


def bytes_of(kept: dict[int, Tensor]) -> int:
    """Their storages, each counted once."""
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def network(shape: FluxShape) -> nn.Module:
    torch.manual_seed(0)
    return FluxTransformer2DModel(**transformer_config(shape)).eval().requires_grad_(False)


def attached_adapters(shape: FluxShape, method: str) -> Adapters:
    places, generator = shape.sites("all"), generator_of("heads")
    meta_down = random_meta_down(places, 16, generator) if method == "meta-lora" else None
    adapters = new_adapters(places, 1, generator, meta_down=meta_down)
    new_optimizer(adapters, PersonalizeConfig(method=method))  # freezes what stage 2 does not train
    return adapters


def forward(model: nn.Module, shape: FluxShape) -> None:
    dtype = model.proj_out.weight.dtype
    model(
        hidden_states=torch.randn(1, IMAGE, shape.in_channels, dtype=dtype),
        encoder_hidden_states=torch.randn(1, TEXT, shape.joint_dim, dtype=dtype),
        pooled_projections=torch.randn(1, shape.pooled_dim, dtype=dtype),
        timestep=torch.tensor([0.5]),
        guidance=torch.tensor([1.0]),
        txt_ids=torch.zeros(TEXT, 3),
        img_ids=positions(32, 32),
    )


def kept(
    shape: FluxShape, method: str, checkpointing: bool = False, dtype: torch.dtype = torch.float32
) -> dict[int, torch.Tensor]:
    model, adapters = nn.Module.to(network(shape), dtype), attached_adapters(shape, method)
    if checkpointing:
        model.enable_gradient_checkpointing()
    with adapters.attached(model):
        return kept_for_backward(model, adapters.parameters(), lambda: forward(model, shape))


def shape_of(double: int, single: int) -> FluxShape:
    return FluxShape(
        width=256,
        double_blocks=double,
        single_blocks=single,
        in_channels=64,
        joint_dim=64,
        pooled_dim=32,
        guidance=True,
    )


def test_meta_lora_keeps_less_than_a_plain_lora_and_with_checkpointing_little_more_than_a_blocks_input():
    shape = shape_of(2, 2)
    ratio = bytes_of(kept(shape, "meta-lora")) / bytes_of(kept(shape, "lora"))
    assert ratio < 0.8, ratio  # 0.76 when it was written
    small, large = shape_of(1, 1), shape_of(2, 3)
    counted = (bytes_of(kept(large, "meta-lora", True)) - bytes_of(kept(small, "meta-lora", True))) / 4
    assert 0.8 < counted / (3 * (TEXT + IMAGE) * 256) < 1.3


@pytest.mark.parametrize(("method", "saves"), [("meta-lora", False), ("lora", True)])
def test_an_adapted_linear_saves_its_input_only_for_a_plain_lora(method: str, saves: bool):
    shape = shape_of(1, 1)
    model, adapters = network(shape), attached_adapters(shape, method)
    inputs: dict[str, torch.Tensor] = {}  # held, so that no address is used again

    def remember(name: str):
        return lambda _module, args, _output: inputs.update({name: args[0]})

    # Only a layer whose input no other operation saves can tell: these read the output of SiLU or GELU, which save
    # what they were given, not what they gave.
    telling = [
        s.module for s in adapters.sites.values() if s.module.endswith(("ff.net.2", "norm1.linear", "norm.linear"))
    ]
    for name in telling:
        model.get_submodule(name).register_forward_hook(remember(name))
    with adapters.attached(model):
        saved = kept_for_backward(model, adapters.parameters(), lambda: forward(model, shape))
    assert telling
    found = {name: x.untyped_storage().data_ptr() in saved for name, x in inputs.items()}
    assert found == dict.fromkeys(telling, saves)


@pytest.mark.parametrize("method", ["meta-lora", "lora"])
def test_the_memory_estimate_agrees_with_what_is_kept(method: str):
    small, large = shape_of(1, 1), shape_of(2, 3)
    counted = (bytes_of(kept(large, method, dtype=BF16)) - bytes_of(kept(small, method, dtype=BF16))) / 2
    meta = method == "meta-lora"
    estimated = sum(
        sign * activation_numbers(shape, TEXT + IMAGE, meta=meta, checkpointing=False)
        for shape, sign in ((large, 1), (small, -1))
    )
    assert abs(estimated / counted - 1) < 0.05
