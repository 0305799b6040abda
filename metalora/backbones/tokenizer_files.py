"""Where the tokenizers come from when a FLUX is made of single files, none of which holds them."""

from pathlib import Path
from typing import Any

from ..config import UserError
from .hub import snapshot

LAYOUTS = (  # (CLIP's, T5's) inside a folder
    ("tokenizer", "tokenizer_2"),  # a diffusers pipeline
    ("comfy/sd1_tokenizer", "comfy/text_encoders/t5_tokenizer"),  # ComfyUI carries both
)
ON_THE_HUB = ("openai/clip-vit-large-patch14", "google/t5-v1_1-xxl")  # public; some 3 MB
VOCABULARIES = ["tokenizer*", "special_tokens_map.json", "vocab.json", "merges.txt", "spiece.model"]
HELP = (
    "FLUX's tokenizers are in none of the single files. Give a folder with --tokenizers: your ComfyUI folder (it has "
    "both), or one with the folders tokenizer and tokenizer_2 of a FLUX.1 pipeline."
)


def tokenizer_folders(folder: Path | None) -> tuple[Path, Path]:
    """The folders of CLIP's and T5's tokenizers."""
    if folder is None:
        clip, t5 = (snapshot(name, VOCABULARIES, HELP) for name in ON_THE_HUB)
        return clip, t5
    for clip_folder, t5_folder in LAYOUTS:
        if (folder / clip_folder).is_dir() and (folder / t5_folder).is_dir():
            return folder / clip_folder, folder / t5_folder
    raise UserError(f"{folder} {'has no tokenizers' if folder.is_dir() else 'is no folder'}. {HELP}")


def read_tokenizers(clip: Path, t5: Path) -> tuple[Any, Any]:
    """(CLIPTokenizerFast, T5TokenizerFast)."""
    from transformers import CLIPTokenizerFast, T5TokenizerFast  # type: ignore[attr-defined]

    try:
        return CLIPTokenizerFast.from_pretrained(clip), T5TokenizerFast.from_pretrained(t5)
    except ImportError as error:
        raise UserError(f"{t5} needs one more package: pip install sentencepiece protobuf ({error}).") from error
    except (OSError, ValueError) as error:
        raise UserError(f"The tokenizers in {clip} and {t5} cannot be read: {str(error).splitlines()[0]}") from error
