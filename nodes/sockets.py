"""The socket types that are ours, and a schema of any ComfyUI's age; all other types are ComfyUI's own."""

import inspect
from dataclasses import dataclass
from typing import Any

from comfy_api.latest import io

CATEGORY = "Meta-LoRA"

MetaDownSocket = io.Custom("META_DOWN")
AdapterSocket = io.Custom("META_LORA_ADAPTER")
BenchmarkSocket = io.Custom("META_LORA_BENCHMARK")  # the folder of a run


@dataclass(frozen=True)
class MetaDown:
    """What a META_DOWN wire carries: a file's path, or "random" for the untrained control."""

    source: str


def schema(*, search_aliases: list[str], **settings: Any) -> io.Schema:
    """A node's schema, with other words that its page finds it by where this ComfyUI knows such: 0.3.64 does not."""
    known = "search_aliases" in inspect.signature(io.Schema).parameters
    return io.Schema(**settings, **({"search_aliases": search_aliases} if known else {}))
