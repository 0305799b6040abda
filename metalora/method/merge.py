"""Three matrices -> two: the export of a finished adapter as an ordinary LoRA (paper, section 3.4)."""

from torch import Tensor

from .adapter import Adapter, Adapters


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
