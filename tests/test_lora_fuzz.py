"""Safetensors files with anything wrong in them: every reader of LoRAs returns, or says so in a sentence, and soon.

The mutations are of bytes, of the header's text, of names, shapes, types and values, and of the metadata; the same in
every run.
"""

import contextlib
import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fuzzing import Fuzz
from safetensors.torch import save_file
from torch import Tensor

from metalora.backbones.architecture import KEY_FORMATS, format_lora
from metalora.backbones.families.flux import FluxShape
from metalora.jobs import run
from metalora.jobs.info import describe, inspect_meta_down
from metalora.jobs.lora import load_lora, merge_adapter, meta_down_from_loras
from metalora.store import files

pytestmark = pytest.mark.slow

SHAPE = FluxShape(8, 1, 1, in_channels=64, joint_dim=64, pooled_dim=32, guidance=True)
BACKBONE: Any = SimpleNamespace(architecture=SHAPE, name=SHAPE.name, sites=SHAPE.sites)
CONFIG = {"r": 2, "lora_alpha": 4, "rank_pattern": {"to_q": 2}, "alpha_pattern": {"to_k": 1}, "use_rslora": False}
NUMBERS = (float("nan"), float("inf"), -1e38, 1e30, 1e-45, 0.0)
TYPES = (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.complex64)
VALUES = ("", "nan", "1e999", "-1", "{}", "[]", "null", "[" * 5000, "\x00\x1b[2J", "x" * 5000, '{"r": {}}', "1" * 5000)
ROLES = (
    *(f"lora_{role}.weight" for role in ("A", "B", "up", "down", "mid")),
    *("alpha", "diff", "diff_b", "dora_scale", "lora_magnitude_vector", "lokr_w1", "lokr_w2_a", "hada_w1_a", "lokr_t2"),
    *("down", "mid", "up", "mean_heads", "lora_A.default.weight", "lora_B.bias"),
)
LAYERS = (
    *("transformer.transformer_blocks.0.attn.to_q", "diffusion_model.double_blocks.0.img_attn.qkv", "x" * 3000, ""),
    *("lora_unet_single_blocks_0_linear1", "transformer.x_embedder", "lora_te1_text_model_encoder_layers_0_mlp_fc1"),
    *("transformer.transformer_blocks.99999999999999999999.attn.to_q", "double_blocks.0.processor.qkv_lora1.down"),
)


def seeds(generator: torch.Generator) -> list[tuple[dict[str, Tensor], dict[str, str]]]:
    """Whole files of each kind that the readers take."""

    def drawn(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator)

    every = BACKBONE.sites("all")
    lora = {site.name: (drawn(2, site.in_features), drawn(site.out_features, 2)) for site in every}
    ours = {"metalora.base": SHAPE.name, "metalora.shape": json.dumps(vars(SHAPE)), "metalora.scale": "1"}
    config = json.dumps({f"transformer.{key}": value for key, value in CONFIG.items()})
    made = [(format_lora(lora, key_format, SHAPE), {"lora_adapter_metadata": config}) for key_format in KEY_FORMATS]
    adapter, downs, lokr, loha = {}, {}, {}, {}
    for site in every:
        size, stem = (site.out_features, site.in_features), "lycoris_" + site.name.replace(".", "_")
        downs[f"{site.name}.down"] = drawn(4, size[1])
        adapter |= {f"{site.name}.down": drawn(4, size[1]), f"{site.name}.mid": drawn(1, 4)}
        adapter[f"{site.name}.up"] = drawn(size[0], 1)
        lokr |= {f"{stem}.lokr_w1": drawn(4, 4), f"{stem}.lokr_w2_a": drawn(size[0] // 4, 1)}
        lokr |= {f"{stem}.lokr_w2_b": drawn(1, size[1] // 4), f"{stem}.alpha": torch.tensor(1.0)}
        loha |= {
            f"{stem}.hada_w{i}_{ab}": drawn(*((size[0], 2) if ab == "a" else (2, size[1]))) for i in "12" for ab in "ab"
        }
    return [
        *made,
        (adapter, ours | {"metalora.kind": "adapter"}),
        (downs, ours | {"metalora.kind": "meta-down", "metalora.domain": "woman"}),
        (lokr, {}),
        (loha, {}),
    ]


def changed(tensors: dict[str, Tensor], metadata: dict[str, str], rng: random.Random) -> None:
    """One thing wrong with the names, shapes, types, values or metadata."""
    key = rng.choice(sorted(tensors) or [""])
    tensor = tensors.get(key, torch.zeros(1))
    other = rng.choice(LAYERS + tuple(name.rpartition(".")[0] for name in list(tensors)[:3]))
    match rng.randrange(9):
        case 0:
            tensors.pop(key, None)
        case 1:
            tensors[f"{other}.{rng.choice(ROLES)}"] = tensors.pop(key, tensor)
        case 2:
            size = [rng.randrange(9) for _ in range(rng.randrange(4))]
            tensors[f"{key.rpartition('.')[0]}.{rng.choice(ROLES)}"] = torch.zeros(size)
        case 3:
            tensors[key] = torch.ones([rng.randrange(9) for _ in range(rng.randrange(5))])
        case 4:
            tensors[key] = tensor.to(rng.choice(TYPES))
        case 5:
            tensors[key] = torch.full_like(tensor, rng.choice(NUMBERS)) if tensor.is_floating_point() else tensor
        case 6:
            tensors[key] = tensor.t().contiguous() if tensor.ndim == 2 else tensor[None]
        case 7:
            name = rng.choice([*metadata, "lora_adapter_metadata", "metalora.kind"])
            text = list(metadata.get(name, "") or rng.choice(VALUES))
            text[rng.randrange(len(text) + 1) :] = rng.choice([*VALUES, rng.choice(ROLES)])
            metadata[name] = "".join(text)
        case 8:
            metadata.pop(rng.choice([*metadata, ""]), None)


def bytes_changed(data: bytes, rng: random.Random) -> bytes:
    """A few bytes, most of them in the header; or the end cut off."""
    header = 8 + int.from_bytes(data[:8], "little")
    changed_data = bytearray(data[: rng.randrange(len(data))] if rng.random() < 0.1 else data)
    for _ in range(rng.randrange(1, 6)):
        if changed_data:
            place = rng.randrange(min(len(changed_data), rng.choice([8, header, len(data)])))
            changed_data[place] = rng.choice([rng.randrange(256), ord(rng.choice('0123456789[]{}",:'))])
    return bytes(changed_data)


def readers(folder: Path) -> dict[str, Callable[[Path], object]]:
    out = folder / "out" / "x.safetensors"
    return {
        "generate": lambda path: load_lora(path, BACKBONE),
        "info": describe,
        "merge": lambda path: run(merge_adapter(path, out, "diffusers", overwrite=True)),
        "inspect": inspect_meta_down,
        "from-loras": lambda path: run(meta_down_from_loras(path.parent, out, BACKBONE, "woman", 2, overwrite=True)),
    }


def test_no_file_is_a_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(files.os, "fsync", lambda _: None)  # thousands of files are written
    made = seeds(torch.Generator().manual_seed(0))
    (tmp_path / "loras").mkdir()
    for number in range(2):
        save_file(made[number][0], tmp_path / "loras" / f"good-{number}.safetensors", made[number][1])
    path, outcomes, fuzz = tmp_path / "loras" / "x.safetensors", Counter[str](), Fuzz("LoRAs", few=300)
    for number in fuzz:
        rng = random.Random(number)
        tensors, metadata = map(dict, rng.choice(made))
        by_bytes = rng.random() < 0.3
        for _ in range(0 if by_bytes else rng.choice([1, 1, 2, 3])):
            changed(tensors, metadata, rng)
        with contextlib.suppress(RuntimeError):  # torch saves no tensor of no dimensions and some sizes
            save_file(tensors, path, metadata)
        if by_bytes:
            path.write_bytes(bytes_changed(path.read_bytes(), rng))
        for name, reader in readers(tmp_path).items():
            if name == "from-loras" and number % 20:
                continue  # what it reads, generate reads
            outcomes[name] += fuzz.attempt(reader, path)
    assert all(outcomes[name] for name in readers(tmp_path)), "every reader must have read something"
