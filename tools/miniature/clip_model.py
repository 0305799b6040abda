"""The small CLIP that measures prompts in the miniature world: open_clip's own class, our tokenizer, our captions."""

import json
import pathlib

import torch
from open_clip import create_model, get_tokenizer
from open_clip.loss import ClipLoss
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from torch import Tensor
from transformers import CLIPTokenizer

from metalora.store.files import safetensors_bytes, write_bytes

from .captions import PHRASES, Attributes, describe
from .text import clip_tokenizer

PIXELS = 128  # of the photos
TOKENS = 40  # as many as the text encoders of FLUX see
VISION = {"image_size": PIXELS, "layers": [1, 1, 1, 1], "width": 16}  # four numbers: CLIP's ResNet
TEXT = {"context_length": TOKENS, "hf_tokenizer_name": ".", "width": 64, "heads": 2, "layers": 2}
PREPROCESS = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"}  # what `to_signal` does


def config(vision: dict, text: dict, embed_dim: int = 128) -> dict:
    """open_clip's model config; the tokenizer's folder is the config's own."""
    return {"embed_dim": embed_dim, "vision_cfg": vision, "text_cfg": text | {"vocab_size": len(clip_tokenizer())}}


def new_clip(model_config: dict) -> CLIP:
    vision, text = CLIPVisionCfg(**model_config["vision_cfg"]), CLIPTextCfg(**model_config["text_cfg"])
    return CLIP(model_config["embed_dim"], vision, text)


def contrast(model: CLIP, pixels: Tensor, tokens: Tensor, sets: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The mean of CLIP's loss over sets of pairs: (which of the photos [n, 3, h, w], which of the captions [m, t])."""
    image, loss = model.encode_image(pixels, normalize=True).float(), ClipLoss()
    text = model.encode_text(tokens, normalize=True).float()
    scale = model.logit_scale.exp().clamp(max=100)
    return torch.stack([loss(image[photos], text[captions], scale) for photos, captions in sets]).mean()


def sayings(known: list[Attributes], generator: torch.Generator) -> list[tuple[list[int], list[str]]]:
    """What is said of photos: (which of them, a caption each), once of every attribute alone and once of several.

    Alone, because whoever knows the colours of walls and clothes can tell all photos of a batch apart, and has no
    reason to look at a face.
    """
    sets = [(range(len(known)), [said(one, generator) for one in known])]
    for name, phrases in PHRASES.items():
        having = [at for at, one in enumerate(known) if name in one]
        sets.append((having, [phrases[known[at][name]] for at in having]))
    return [(list(photos), captions) for photos, captions in sets if captions]


def said(attributes: Attributes, generator: torch.Generator) -> str:
    """A caption of some of the attributes: how many is drawn first, so that a single one is as likely as all."""
    count = 1 + int(torch.randint(len(attributes), (), generator=generator))
    names = list(attributes)
    chosen = {names[at] for at in torch.randperm(len(names), generator=generator)[:count]}
    return describe({name: value for name, value in attributes.items() if name in chosen})


def kept_tokenizer(folder: pathlib.Path) -> CLIPTokenizer:
    """The tokenizer in the folder, made once: ties in its making are broken by chance, and weights know one outcome."""
    if not (folder / "tokenizer_config.json").exists():
        made = clip_tokenizer()
        made.model_max_length = TOKENS
        made.save_pretrained(folder)
    return CLIPTokenizer.from_pretrained(folder)


def tokens_of(captions: list[str], tokenizer: CLIPTokenizer) -> Tensor:
    """[n, TOKENS]"""
    padded = tokenizer(captions, padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt")
    return padded.input_ids


def export(
    model: CLIP, model_config: dict, tokenizer: CLIPTokenizer, folder: pathlib.Path, facts: dict[str, str]
) -> None:
    """A folder that open_clip opens as `local-dir:<folder>`: config, half-precision weights, tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
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
