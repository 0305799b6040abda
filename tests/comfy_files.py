"""A base's parts in single files as ComfyUI users have them: under its makers' names, in bf16, fp8 and scaled fp8."""

import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

Renames = dict[str, str]  # regular expression of diffusers' name -> theirs; the first that matches counts
SWAPPED = "norm_out.linear."  # diffusers has scale before shift
SIDE_BY_SIDE = ("_q", "_k", "_v", "_mlp")  # of a fused matrix, in this order

BFL: Renames = {
    r"x_embedder": "img_in",
    r"context_embedder": "txt_in",
    r"time_(text|guidance)_embed\.timestep_embedder\.linear_1": "time_in.in_layer",
    r"time_(text|guidance)_embed\.timestep_embedder\.linear_2": "time_in.out_layer",
    r"time_text_embed\.guidance_embedder\.linear_1": "guidance_in.in_layer",
    r"time_text_embed\.guidance_embedder\.linear_2": "guidance_in.out_layer",
    r"time_text_embed\.text_embedder\.linear_1": "vector_in.in_layer",
    r"time_text_embed\.text_embedder\.linear_2": "vector_in.out_layer",
    r"norm_out\.linear": "final_layer.adaLN_modulation.1",
    r"proj_out": "final_layer.linear",
    r"(double_stream_modulation_img|double_stream_modulation_txt|single_stream_modulation)\.linear": r"\1.lin",
    r"transformer_blocks\.(\d+)\.norm1\.linear": r"double_blocks.\1.img_mod.lin",
    r"transformer_blocks\.(\d+)\.norm1_context\.linear": r"double_blocks.\1.txt_mod.lin",
    r"transformer_blocks\.(\d+)\.attn\.to_[qkv]": r"double_blocks.\1.img_attn.qkv",
    r"transformer_blocks\.(\d+)\.attn\.add_[qkv]_proj": r"double_blocks.\1.txt_attn.qkv",
    r"transformer_blocks\.(\d+)\.attn\.norm_q\.weight": r"double_blocks.\1.img_attn.norm.query_norm.scale",
    r"transformer_blocks\.(\d+)\.attn\.norm_k\.weight": r"double_blocks.\1.img_attn.norm.key_norm.scale",
    r"transformer_blocks\.(\d+)\.attn\.norm_added_q\.weight": r"double_blocks.\1.txt_attn.norm.query_norm.scale",
    r"transformer_blocks\.(\d+)\.attn\.norm_added_k\.weight": r"double_blocks.\1.txt_attn.norm.key_norm.scale",
    r"transformer_blocks\.(\d+)\.attn\.to_out\.0": r"double_blocks.\1.img_attn.proj",
    r"transformer_blocks\.(\d+)\.attn\.to_add_out": r"double_blocks.\1.txt_attn.proj",
    r"transformer_blocks\.(\d+)\.ff\.(net\.0\.proj|linear_in)": r"double_blocks.\1.img_mlp.0",
    r"transformer_blocks\.(\d+)\.ff\.(net\.2|linear_out)": r"double_blocks.\1.img_mlp.2",
    r"transformer_blocks\.(\d+)\.ff_context\.(net\.0\.proj|linear_in)": r"double_blocks.\1.txt_mlp.0",
    r"transformer_blocks\.(\d+)\.ff_context\.(net\.2|linear_out)": r"double_blocks.\1.txt_mlp.2",
    r"single_transformer_blocks\.(\d+)\.norm\.linear": r"single_blocks.\1.modulation.lin",
    r"single_transformer_blocks\.(\d+)\.(attn\.to_[qkv]\b|proj_mlp|attn\.to_qkv_mlp_proj)": r"single_blocks.\1.linear1",
    r"single_transformer_blocks\.(\d+)\.(proj_out|attn\.to_out)": r"single_blocks.\1.linear2",
    r"single_transformer_blocks\.(\d+)\.attn\.norm_q\.weight": r"single_blocks.\1.norm.query_norm.scale",
    r"single_transformer_blocks\.(\d+)\.attn\.norm_k\.weight": r"single_blocks.\1.norm.key_norm.scale",
}
Z_IMAGE: Renames = {
    r"all_final_layer\.2-1\.": "final_layer.",
    r"all_x_embedder\.2-1\.": "x_embedder.",
    r"(.*)\.attention\.to_[qkv]\.": r"\1.attention.qkv.",
    r"(.*)\.attention\.to_out\.0\.": r"\1.attention.out.",
    r"(.*)\.attention\.norm_([qk])\.": r"\1.attention.\2_norm.",
}
LDM: Renames = {  # of an autoencoder with four levels
    r"(encoder|decoder)\.conv_norm_out": r"\1.norm_out",
    r"(encoder|decoder)\.mid_block\.attentions\.0\.group_norm": r"\1.mid.attn_1.norm",
    r"(encoder|decoder)\.mid_block\.attentions\.0\.to_([qkv])": r"\1.mid.attn_1.\2",
    r"(encoder|decoder)\.mid_block\.attentions\.0\.to_out\.0": r"\1.mid.attn_1.proj_out",
    r"(encoder|decoder)\.mid_block\.resnets\.0": r"\1.mid.block_1",
    r"(encoder|decoder)\.mid_block\.resnets\.1": r"\1.mid.block_2",
    r"encoder\.down_blocks\.(\d)\.downsamplers\.0": r"encoder.down.\1.downsample",
    r"encoder\.down_blocks\.(\d)\.resnets\.(\d)": r"encoder.down.\1.block.\2",
    **{rf"decoder\.up_blocks\.{i}\.upsamplers\.0": f"decoder.up.{3 - i}.upsample" for i in range(4)},
    **{rf"decoder\.up_blocks\.{i}\.resnets\.(\d)": rf"decoder.up.{3 - i}.block.\1" for i in range(4)},
}


def as_they_name(weights: dict[str, Tensor], renames: Renames) -> dict[str, Tensor]:
    """The makers' names; what lies side by side in one of their matrices is put together in order."""
    pieces: dict[str, list[Tensor]] = {}
    for name in sorted(weights, key=lambda name: max((i for i, q in enumerate(SIDE_BY_SIDE) if q in name), default=0)):
        weight = weights[name]
        pattern = next((pattern for pattern in renames if re.match(pattern, name)), None)
        theirs = name if pattern is None else re.sub(f"^{pattern}", renames[pattern], name)
        theirs = theirs.replace("conv_shortcut", "nin_shortcut") if renames is LDM else theirs
        if renames is LDM and re.search(r"attn_1\.(q|k|v|proj_out)\.weight", theirs):
            weight = weight[:, :, None, None]  # a convolution of size 1
        if renames is BFL and name.startswith(SWAPPED):
            weight = torch.cat(weight.chunk(2)[::-1])
        pieces.setdefault(theirs, []).append(weight.detach().clone())
    return {name: torch.cat(parts) if len(parts) > 1 else parts[0] for name, parts in pieces.items()}


def write(weights: dict[str, Tensor], path: Path, prefix: str = "") -> Path:
    """One safetensors file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({prefix + name: weight.contiguous() for name, weight in weights.items()}, path)
    return path


def scaled_fp8(weights: dict[str, Tensor], scale: str = "scale_weight") -> dict[str, Tensor]:
    """The matrices of blocks in E4M3 with a scale each, of 2025's kind or of today's."""
    made: dict[str, Tensor] = {"scaled_fp8": torch.zeros(2).to(torch.float8_e4m3fn)} if scale == "scale_weight" else {}
    for name, weight in weights.items():
        made[name] = weight
        if weight.ndim == 2 and name.endswith(".weight") and re.search(r"(blocks|layers|block)\.\d", name):
            factor, layer = weight.abs().max() / 448, name.removesuffix(".weight")
            made |= {name: (weight / factor).to(torch.float8_e4m3fn), f"{layer}.{scale}": factor}
            if scale != "scale_weight":
                made[f"{layer}.comfy_quant"] = torch.tensor(list(b'{"format": "float8_e4m3fn"}'), dtype=torch.uint8)
    return made


def save_pipeline(parts: Any, folder: Path, dtype: torch.dtype = torch.float32) -> Path:
    """A FLUX.1's parts as a folder that `FluxPipeline.from_pretrained` opens."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline

    texts = parts.text_encoders("cpu", dtype)
    models = {"vae": parts.autoencoder("cpu", dtype), "transformer": parts.transformer("cpu", dtype)}
    scheduler = FlowMatchEulerDiscreteScheduler.from_config(parts.scheduler_config)
    FluxPipeline(scheduler=scheduler, **texts, **models).save_pretrained(folder)
    return folder


def save_single_files(parts: Any, folder: Path) -> dict[str, Path]:
    """A FLUX.1's parts as single files; the transformer under diffusers' names, which any width may have."""
    texts = parts.text_encoders("cpu", torch.float32)
    for name in ("tokenizer", "tokenizer_2"):
        texts[name].save_pretrained(folder / name)
    clip = {f"text_model.{n.removeprefix('text_model.')}": w for n, w in texts["text_encoder"].named_parameters()}
    vae = as_they_name(parts.autoencoder("cpu", torch.float32).state_dict(), LDM)
    return {
        "transformer": write(parts.transformer("cpu", torch.float32).state_dict(), folder / "transformer.safetensors"),
        "vae": write(vae, folder / "vae.safetensors"),
        "clip_l": write(clip, folder / "clip_l.safetensors"),
        "t5xxl": write(dict(texts["text_encoder_2"].named_parameters()), folder / "t5xxl.safetensors"),
        "tokenizers": folder,
    }
