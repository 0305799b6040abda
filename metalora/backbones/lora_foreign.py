"""What a LoRA file holds that FLUX.1's blocks cannot take: another base, another method, other parts of the model."""

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from ..config import UserError
from .architecture import Architecture

TEXT_ENCODERS = re.compile(
    r"^(lora_te\d*_|(base_model\.model\.)?(text_encoders?(_\d)?|te\d?|clip_[lg]|t5xxl|text_model|cond_stage_model)[._])"
)
EMBEDDINGS = re.compile(r"^(bundle_emb\.|emb_params$|clip_[lg]$|t5xxl$|string_to_param|learned_embeds)")
NORMS = re.compile(r"([._]norm_(added_)?[qk]|[._](query|key)_norm|[._]norm)([._]scale)?\.|\.(w|b)_norm$")
OUTSIDE = (  # FLUX.1's layers outside its blocks, in diffusers' and Black Forest Labs' names
    *("x_embedder", "context_embedder", "time_text_embed", "norm_out", "proj_out"),
    *("img_in", "txt_in", "time_in", "guidance_in", "vector_in", "final_layer"),
)
ROLE = re.compile(r"[._](lora[._]|lora_bias|lokr_|hada_|alpha|diff|bias|weight|scale|[wb]_norm).*$")
BIAS = re.compile(r"(lora[._](A|B|up|down)(\.\w+)?\.bias|\.diff_b|\.lora_bias|\.bias)$")

# What changes a weight by other rules than a sum; reading only a part of it would be another LoRA.
METHODS = (
    ("DoRA", r"\.(dora_scale|dora_magnitude|lora_magnitude_vector)\b", "it also rescales the base's weights"),
    ("OFT or BOFT", r"\.(oft_blocks|oft_diag|oft_[RSr]|boft_[RSr])\b", "it turns the base's weights"),
    ("GLoRA", r"\.(a1|a2|b1|b2)\.weight$", "it multiplies the base's weights"),
    ("IA3", r"\.(ia3_l|on_input)\b", "it multiplies the base's outputs"),
    ("VeRA, VB-LoRA or HRA", r"[._](vera_lambda_|vera_[AB]$|vblora_|hra_u)", "its matrices are shared or reflections"),
    ("Tucker-decomposed LoRA", r"\.(lora_mid\.weight|hada_t[12]|lokr_t2)$", "it is of convolutions"),
    ("file of replaced weights", r"\.(set_weight|reshape_weight)$", "it overwrites the base's weights"),
)
# Names of layers that FLUX.1 has not. FLUX.2, whose other names are FLUX.1's, is also known by its shapes.
BASES = (
    ("a Stable Diffusion", r"(down|up|input|output|mid|middle)_blocks?[._]\d*.*(attentions|transformer_blocks)"),
    ("a Stable Diffusion 3", r"joint_blocks[._]\d+[._](x|context)_block"),
    (
        "a FLUX.2",
        r"(double|single)_stream_modulation|to_qkv_mlp_proj|single_transformer_blocks[._]\d+[._]attn[._]to_out",
    ),
    ("a Wan", r"(^|[._])blocks[._]\d+[._](self|cross)_attn[._]([qkvo]|[kv]_img)\."),
    ("a Wan", r"(^|\.)blocks\.\d+\.(attn[12]\.to_|ffn\.net)"),
    ("a Z-Image", r"(noise_refiner|context_refiner|layers)[._]\d+[._](attention[._]to_|adaLN_mod|feed_forward[._]w)"),
    ("a Lumina 2", r"layers[._]\d+[._]attention[._]qkv"),
    ("a Qwen-Image", r"transformer_blocks[._]\d+[._](img|txt)_(mlp|mod)[._]"),
    ("a HunyuanVideo", r"double_blocks\.\d+\.(img|txt)_attn_(qkv|proj)\."),
    ("a Chroma", r"distilled_guidance_layer"),
    ("a HiDream", r"(double|single)_stream_blocks[._]\d+"),
    ("a PixArt, LTX-Video or Mochi", r"(?<!single_)transformer_blocks[._]\d+[._]attn[12][._]to_[qkv]"),
)
BLOCKS = re.compile(r"(?:^|[._])((?:single_)?transformer_blocks|double_blocks|single_blocks)[._](\d+)[._]")
GATED = (re.compile(r"linear1[._]lora"), 9), (re.compile(r"(img|txt)_mlp[._]0[._]lora"), 6)
TOKEN = 64  # numbers of a token of FLUX.1's latents
TOKENS_IN = re.compile(r"(x_embedder|img_in)[._]lora[._](A|down)")


def refuse_other_methods(keys: Iterable[str]) -> None:
    """A UserError under the method's true name, if one of the keys is of another than LoRA, LoKr and LoHa."""
    for key in keys:
        for name, pattern, why in METHODS:
            if re.search(pattern, key) and not TEXT_ENCODERS.search(key):
                raise UserError(
                    f"it is of the kind {name} ({key}): {why}, so it cannot be read as an ordinary LoRA. Merge it "
                    "into the base with the program that made it, or train it again as a LoRA"
                )


Shapes = Mapping[str, tuple[int, ...]]  # of a file's tensors by key


def refuse_other_bases(shapes: Shapes, architecture: Architecture) -> None:
    """A UserError, if a file is surely of another base than a FLUX.1: by names that it has not, by blocks or shapes.

    Of another base's LoRAs nothing is known but the names of its own layers.
    """
    if not architecture.fused:
        return
    found = base_of(shapes)
    if found:
        raise UserError(
            f"it looks like {found[0]} LoRA ({found[1]}): it was made for another base than {architecture.name}"
        )
    singles = sum(name.startswith("single_") for name in architecture.blocks)
    counts = {"double": len(architecture.blocks) - singles, "single": singles}
    for key, size in shapes.items():
        if TEXT_ENCODERS.search(key):
            continue
        block = BLOCKS.search(key)
        kind = "single" if block and block[1].startswith("single") else "double"
        if block and (len(block[2]) > 4 or int(block[2]) >= counts[kind]):
            raise UserError(
                f"it has {key}, but {architecture.name} has {counts[kind]} {kind} blocks: it is of another base"
            )
        if TOKENS_IN.search(key) and size[1:] in [(n * TOKEN,) for n in (2, 6)]:
            raise UserError(
                f"it looks like a control LoRA, Depth, Canny or Fill ({key} takes {size[1]} numbers a token, "
                f"{architecture.name} has {TOKEN}): it needs another picture as input"
            )


def base_of(shapes: Shapes) -> tuple[str, str] | None:
    """(another base than FLUX.1, the key that tells) or None."""
    for key in shapes:
        if not TEXT_ENCODERS.search(key):
            name = next((name for name, pattern in BASES if re.search(pattern, key[:500])), "")
            if name or gated(key, shapes):
                return (stable_diffusion(shapes) if name == BASES[0][0] else name or "a FLUX.2"), key
    return None


def gated(key: str, shapes: Shapes) -> bool:
    """Whether a key is of FLUX.2's MLP, which is gated, so that its first layer is twice as large."""
    up, down = shapes[key], shapes.get(key.replace("lora_up", "lora_down").replace("lora_B", "lora_A"), ())
    if len(up) != 2 or len(down) != 2 or up == down:
        return False
    return any(pattern.search(key) and up[0] == ratio * down[1] for pattern, ratio in GATED)


def stable_diffusion(shapes: Shapes) -> str:
    """Which one, by the width of its text embeddings."""
    widths = {
        size[1]
        for key, size in shapes.items()
        if len(size) >= 2 and re.search(r"attn2[._].*to_k.*(down|lora_A)", key[:500])
    }
    names = {768: "a Stable Diffusion 1.5", 1024: "a Stable Diffusion 2", 2048: "an SDXL"}
    return names.get(widths.pop(), BASES[0][0]) if len(widths) == 1 else BASES[0][0]


def part_of(key: str, name: str) -> str:
    """Of which part of the model a tensor is that was left out; `name` is the key without its prefixes."""
    if EMBEDDINGS.search(key):
        return "embeddings of words"
    if TEXT_ENCODERS.search(key):
        return "text-encoder layers"
    if BIAS.search(key):
        return "biases"
    if name.startswith(OUTSIDE):
        return "embedder and output layers"
    return "norms" if NORMS.search(key) else UNKNOWN


UNKNOWN = "tensors of unknown names"


def notices(left: dict[str, str], tensors: dict[str, Tensor]) -> list[str]:
    """A sentence for each part that was left out: how many layers, and how much of the file that is."""
    whole = sum(tensor.numel() for tensor in tensors.values()) or 1
    found = []
    for part in dict.fromkeys(left.values()):
        keys = [key for key in left if left[key] == part]
        layers = {ROLE.sub("", key) for key in keys}
        share = sum(tensors[key].numel() for key in keys) / whole
        count = f"{len(layers)} layer{'s' if len(layers) > 1 else ''}"
        found.append(f"left out {part}: {count}, {share:.1%} of the file's numbers, such as {keys[0]}")
    return found
