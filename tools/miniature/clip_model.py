"""The small CLIP that measures prompts in the miniature world: open_clip's own class, our tokenizer, our captions."""

import json
import pathlib

import torch
from open_clip import create_model, get_tokenizer
from open_clip.loss import ClipLoss
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from torch import Tensor

from metalora.store.files import safetensors_bytes, write_bytes

from .captions import Attributes, describe
from .text import clip_tokenizer

PIXELS = 128  # of the photos
TOKENS = 40  # as many as the text encoders of FLUX see
VISION = {"image_size": PIXELS, "layers": [1, 1, 1, 1], "width": 16}  # four numbers: CLIP's ResNet
TEXT = {"context_length": TOKENS, "hf_tokenizer_name": ".", "width": 128, "heads": 4, "layers": 2}
PREPROCESS = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"}  # what `to_signal` does


def config(vision: dict, text: dict, embed_dim: int = 128) -> dict:
    """open_clip's model config; the tokenizer's folder is the config's own."""
    return {"embed_dim": embed_dim, "vision_cfg": vision, "text_cfg": text | {"vocab_size": len(clip_tokenizer())}}


def new_clip(model_config: dict) -> CLIP:
    vision, text = CLIPVisionCfg(**model_config["vision_cfg"]), CLIPTextCfg(**model_config["text_cfg"])
    return CLIP(model_config["embed_dim"], vision, text)


def contrast(model: CLIP, pixels: Tensor, tokens: Tensor, sayings: int) -> Tensor:
    """CLIP's loss of photos [n, 3, h, w] in -1..1 and `sayings` captions of each, [sayings * n, t]: photos are dear."""
    image, loss = model.encode_image(pixels, normalize=True).float(), ClipLoss()
    texts = model.encode_text(tokens, normalize=True).float().chunk(sayings)
    scale = model.logit_scale.exp().clamp(max=100)
    return torch.stack([loss(image, text, scale) for text in texts]).mean()


def said(attributes: Attributes, generator: torch.Generator) -> str:
    """A caption of some of the attributes: how many is drawn first, so that a single one is as likely as all."""
    count = 1 + int(torch.randint(len(attributes), (), generator=generator))
    names = list(attributes)
    chosen = {names[at] for at in torch.randperm(len(names), generator=generator)[:count]}
    return describe({name: value for name, value in attributes.items() if name in chosen})


def export(model: CLIP, model_config: dict, folder: pathlib.Path, facts: dict[str, str]) -> None:
    """A folder that open_clip opens as `local-dir:<folder>`: config, half-precision weights, tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = clip_tokenizer()
    tokenizer.model_max_length = TOKENS
    tokenizer.save_pretrained(folder)
    content = json.dumps({"model_cfg": model_config, "preprocess_cfg": PREPROCESS}, indent=2) + "\n"
    write_bytes(folder / "open_clip_config.json", content.encode())
    weights = {
        name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in model.state_dict().items()
    }
    write_bytes(folder / "open_clip_model.safetensors", safetensors_bytes(weights, facts))


def open_exported(folder: pathlib.Path):
    """(model, tokenizer) of an exported folder, as any program with open_clip gets them."""
    return create_model(f"local-dir:{folder}").eval(), get_tokenizer(f"local-dir:{folder}")
