"""FLUX's text encoders as single files: clip_l.safetensors and t5xxl_*.safetensors."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from ..config import UserError
from .conversions import Source, fill
from .flux_configs import clip_config, t5_config
from .keys import FluxShape
from .weight_files import Entry, Landmark, opened_weights, size_in

CLIP_NAMES = "text_model."  # in files always; in CLIPTextModel only before transformers 5
CLIP = Landmark(
    "CLIP text encoder",
    "embeddings.token_embedding.weight",
    (CLIP_NAMES, "", "text_encoders.clip_l.transformer.text_model."),
)
T5 = Landmark("T5 encoder", "encoder.final_layer_norm.weight", ("", "text_encoders.t5xxl.transformer."))
CLIP_SPARE = ("embeddings.position_ids",)
T5_SPARE = ("encoder.embed_tokens.", "decoder.", "lm_head.", "spiece_model", "logit_scale")


def read_clip(path: Path, shape: FluxShape, dtype: torch.dtype, device: torch.device | str) -> Any:
    """CLIPTextModel from one file."""
    from transformers import CLIPTextConfig, CLIPTextModel

    with opened_weights(path, CLIP) as (_, weights):
        entries = weights.entries
        vocabulary, width = entries[CLIP.tensor].shape
        _check_width(path, "CLIP", width, shape.pooled_dim, "clip_l.safetensors")
        hidden = size_in(entries, "encoder.layers.0.mlp.fc1.weight", 0, path, CLIP.part)
        positions = size_in(entries, "embeddings.position_embedding.weight", 0, path, CLIP.part)
        layers = _count(entries, "encoder.layers")
        with torch.random.fork_rng(devices=[]):  # not on the meta device: it has a buffer that no file holds
            model = CLIPTextModel(CLIPTextConfig(**clip_config(vocabulary, width, hidden, layers, positions)))
        sources = {name: Source(name.removeprefix(CLIP_NAMES)) for name, _ in model.named_parameters()}
        fill(model, weights, sources, path, dtype, device, spare=CLIP_SPARE)
    return nn.Module.to(model, device).eval()  # the buffer, too


def read_t5(path: Path, shape: FluxShape, dtype: torch.dtype, device: torch.device | str) -> Any:
    """T5EncoderModel from one file, fp16 or fp8, scaled or not."""
    from transformers import T5Config, T5EncoderModel

    with opened_weights(path, T5) as (_, weights):
        entries = weights.entries
        vocabulary = size_in(entries, "shared.weight", 0, path, T5.part)
        width = size_in(entries, "shared.weight", 1, path, T5.part)
        _check_width(path, "T5", width, shape.joint_dim, "t5xxl_fp16.safetensors or t5xxl_fp8_e4m3fn.safetensors")
        attention = "encoder.block.0.layer.0.SelfAttention"
        heads = size_in(entries, f"{attention}.relative_attention_bias.weight", 1, path, T5.part)
        head = size_in(entries, f"{attention}.q.weight", 0, path, T5.part) // heads
        hidden = size_in(entries, "encoder.block.0.layer.1.DenseReluDense.wi_0.weight", 0, path, T5.part)
        config = T5Config(**t5_config(vocabulary, width, hidden, _count(entries, "encoder.block"), heads, head))
        with torch.device("meta"):
            model = T5EncoderModel(config)
            model.set_input_embeddings(model.shared)  # one matrix under two names, before it is filled
        fill(
            model, weights, {name: Source(name) for name, _ in model.named_parameters()}, path, dtype, device, T5_SPARE
        )
    return model.eval()


def write_clip(model: nn.Module, path: Path) -> None:
    """A CLIPTextModel as one file."""
    save_file(
        {CLIP_NAMES + name.removeprefix(CLIP_NAMES): w.detach().cpu() for name, w in model.named_parameters()}, path
    )


def write_t5(model: nn.Module, path: Path) -> None:
    """A T5EncoderModel as one file; the embeddings once."""
    save_file({name: weight.detach().cpu() for name, weight in model.named_parameters()}, path)


def _count(entries: dict[str, Entry], blocks: str) -> int:
    depth = blocks.count(".") + 1
    return len({name.split(".")[depth] for name in entries if name.startswith(f"{blocks}.")})


def _check_width(path: Path, what: str, width: int, wanted: int, file: str) -> None:
    if width != wanted:
        raise UserError(f"{path}: this {what} is {width} wide, but the transformer takes {wanted}. FLUX.1's is {file}.")
