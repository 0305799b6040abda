"""The socket types that are ours; all others are ComfyUI's own."""

from dataclasses import dataclass

from comfy_api.latest import io

CATEGORY = "Meta-LoRA"

MetaDownSocket = io.Custom("META_DOWN")
AdapterSocket = io.Custom("META_LORA_ADAPTER")
BenchmarkSocket = io.Custom("META_LORA_BENCHMARK")  # the folder of a run


@dataclass(frozen=True)
class MetaDown:
    """What a META_DOWN wire carries: a file's path, or "random" for the untrained control."""

    source: str
