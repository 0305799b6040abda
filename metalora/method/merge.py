"""Three matrices -> two: the export of a finished adapter as an ordinary LoRA (paper, section 3.4); two -> none."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .adapter import Adapter, Adapters, linears


def fold(down: Tensor, mid: Tensor | None, up: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """(lora_down [rank, in], lora_up [out, rank]) with lora_up @ lora_down == scale * up @ mid @ down, in float32."""
    lora_down = down.float() if mid is None else mid.float() @ down.float()
    return lora_down, scale * up.float()


def fold_all(adapters: Adapters) -> dict[str, tuple[Tensor, Tensor]]:
    """The ordinary LoRA by site name, on the CPU."""
    return {name: _folded(adapter) for name, adapter in adapters.by_name.items()}


def _folded(adapter: Adapter) -> tuple[Tensor, Tensor]:
    mid = None if adapter.mid is None else adapter.mid.detach().cpu()
    return fold(adapter.down.detach().cpu(), mid, adapter.up.detach().cpu(), adapter.scale)


@contextmanager
def merged(adapters: Adapters, model: nn.Module, kept_on: torch.device | None = None) -> Iterator[None]:
    """While inside, the layers' own weights hold what the adapters add; afterwards they are the same bits as before.

    An image then costs what it costs without a LoRA. The sums are rounded to the weights' precision, as by every loader
    that merges. `kept_on` is where the weights wait meanwhile, by default beside the sums: as much memory again.
    """
    layers = linears(model, adapters.sites.values())
    before = [module.weight.detach().to(kept_on or module.weight.device, copy=True) for module, _ in layers]
    try:
        with torch.no_grad():
            for module, sites in layers:
                for site in sites:
                    rows = module.weight[site.rows]
                    rows.copy_(rows.float() + product(adapters.by_name[site.name]).to(rows.device))
        yield
    finally:
        with torch.no_grad():
            for (module, _), weight in zip(layers, before, strict=True):
                module.weight.copy_(weight)


def product(adapter: Adapter) -> Tensor:
    """scale * up @ mid @ down, [out, in] in float32: what a layer's weight would be more."""
    down, up = fold(adapter.down.detach(), None if adapter.mid is None else adapter.mid.detach(), adapter.up, 1.0)
    return adapter.scale * (up.detach() @ down)
