"""What training needs of ComfyUI's layers, and gives back."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import comfy.model_management
import comfy.ops
import torch
from comfy.ldm.modules.attention import attention_pytorch
from torch import Tensor, nn

Forward = Callable[..., Tensor]


def differentiable_attention(_attention: Forward, *args: Any, **kwargs: Any) -> Tensor:
    """PyTorch's own, whatever attention ComfyUI was started with: some have no backward."""
    return attention_pytorch(*args, **kwargs)


@contextmanager
def differentiable_kernels() -> Iterator[None]:
    """Newer ComfyUIs leave their own kernels, which have no backward, while this flag is set; older ones have none."""
    before = vars(comfy.model_management).get("in_training", False)
    vars(comfy.model_management)["in_training"] = True
    try:
        yield
    finally:
        vars(comfy.model_management)["in_training"] = before


def casting_layers(network: nn.Module) -> list[Any]:
    """The layers that make a copy of their weights in each forward pass: fp8, or what does not stay on the device."""
    layers = [module for module in network.modules() if isinstance(module, comfy.ops.CastWeightBiasOp)]
    return [layer for layer in layers if layer.comfy_cast_weights or layer.weight_function or layer.bias_function]


def is_plain(weight: Tensor) -> bool:
    """Whether it is what it seems: no quantized kind, which answers for numbers that it does not hold."""
    # A GGUF's tensors are a class of their own also where they are stored as they are.
    return type(weight).__torch_dispatch__ is Tensor.__torch_dispatch__ and weight.is_floating_point()


def stored(weight: Tensor) -> Tensor:
    """A tensor's bytes as they lie in memory, of a quantized kind too, for a fingerprint."""
    weight = weight.detach()
    return vars(weight).get("_qdata", weight).as_subclass(Tensor)


@contextmanager
def own_copies(network: nn.Module) -> Iterator[None]:
    """Casting layers compute with copies of their own, which backward may keep.

    Newer ComfyUIs cast into buffers that the next layer uses again, where backward would find another layer's weights.
    """
    with ExitStack() as stack:
        for layer in casting_layers(network):
            for name in ("weight_function", "bias_function"):
                stack.callback(put_back, layer, name, vars(layer).get(name))
                setattr(layer, name, [*getattr(layer, name), torch.clone])
        yield


def put_back(layer: nn.Module, name: str, before: Any) -> None:
    """An attribute as it was: the layer's own, or its class's."""
    if before is None:
        delattr(layer, name)
    else:
        setattr(layer, name, before)
