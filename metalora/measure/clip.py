"""CLIP through open_clip: how well a picture shows what a prompt asks for, and how alike two pictures are as a whole.

| name | what | weights |
|---|---|---|
| miniature | the small CLIP that reads the miniature world | ship with this package |
| openai | CLIP ViT-B/32 by OpenAI, which the paper's CLIP-T is of | open_clip fetches them once |
| a path | a folder that open_clip opens, or a file of weights of the ViT-B/32 | - |

    CLIP-T = 100 x cosine of prompt and picture        CLIP-I = 100 x cosine of picture and reference

Pictures enter as uint8 and go through the model's own preprocessing: floats in 0..1 risk being scaled twice. OpenAI's
weights need the model `ViT-B-32-quickgelu`; open_clip's `ViT-B-32` has another activation, and only warns.
"""

import hashlib
import importlib.util
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..config import UserError

Input = TypeVar("Input")

MINIATURE, OPENAI = "miniature", "openai"
OPENAI_MODEL = "ViT-B-32-quickgelu"
CONFIG = "open_clip_config.json"
BATCH = 64
LONGEST = 2048  # tokens; a prompt is read up to here to find out whether it is too long for the model


class ClipScorer:
    """An open CLIP. Embeddings are float32 of length 1, on the CPU."""

    def __init__(self, name: str, digest: str, model: Any, preprocess: Callable[[Image.Image], Tensor], tokens: Any):
        self.name = name
        self.digest = digest  # sha256 of the weights
        self.context_length: int = tokens.context_length
        self._model, self._preprocess, self._tokens = model.eval().requires_grad_(False), preprocess, tokens
        self._device = next(model.parameters()).device

    def images(self, pictures: Sequence[Tensor]) -> Tensor:
        """[n, d] of pictures [3, H, W] uint8, each of any size."""

        def encoded(some: Sequence[Tensor]) -> Tensor:
            signals = torch.stack([self._preprocess(to_pil(picture)) for picture in some])
            return self._model.encode_image(signals.to(self._device))

        return in_batches(pictures, encoded)

    def texts(self, texts: Sequence[str]) -> Tensor:
        """[n, d] of prompts. One that is too long is cut and keeps its end token; `truncated` names it."""
        return in_batches(texts, lambda some: self._model.encode_text(self._tokens(list(some)).to(self._device)))

    def truncated(self, texts: Sequence[str]) -> list[str]:
        """Those of the prompts that the model reads only the beginning of."""
        return [text for text in texts if end_of(self._tokens([text], context_length=LONGEST)) >= self.context_length]


def clip_problem() -> str | None:
    """Why open_clip cannot be used, and what to do; None where it can."""
    if importlib.util.find_spec("open_clip") is None:
        return (
            "CLIP scores need the package open_clip, which is not installed: pip install open_clip_torch "
            "(or install this package with its extra [clip])."
        )
    try:
        import open_clip  # noqa: F401
    except (ImportError, RuntimeError) as error:  # the latter from a torchvision that was built for another torch
        return (
            f"open_clip cannot be imported ({error}). If torchvision does not fit torch, install both from one place: "
            "pip install --force-reinstall torch torchvision."
        )
    return None


def load_clip(name_or_path: str = MINIATURE, device: torch.device | str = "cpu") -> ClipScorer:
    """The CLIP of this name, or of a folder or file; what is missing is a UserError that says what to do."""
    if problem := clip_problem():
        raise UserError(problem)
    if name_or_path == MINIATURE:
        return _of_folder(Path(__file__).parents[1] / "data" / "clip", "clip-miniature", device)
    if name_or_path == OPENAI:
        weights = _openai_weights()
        return _opened(OPENAI_MODEL, str(weights), weights, "clip-vit-b-32-openai", device)
    path = Path(name_or_path)
    if path.is_dir():
        return _of_folder(path, f"clip-{path.resolve().name}", device)
    if path.is_file():
        return _opened(OPENAI_MODEL, str(path), path, f"clip-vit-b-32-{path.stem}", device)
    raise UserError(
        f"There is no CLIP {name_or_path!r}: it is neither {MINIATURE!r} nor {OPENAI!r}, nor a folder with {CONFIG}, "
        "nor a file of weights of the ViT-B/32."
    )


def _openai_weights() -> Path:
    """OpenAI's weights in the cache of the Hugging Face hub, where open_clip keeps them."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    from open_clip.pretrained import download_pretrained, get_pretrained_cfg

    try:
        return Path(download_pretrained(get_pretrained_cfg(OPENAI_MODEL, OPENAI)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"OpenAI's CLIP ViT-B/32 is neither on this machine nor could open_clip fetch it ({type(error).__name__}). "
            "Connect once, or give its file or folder instead of the name "
            "(open_clip_model.safetensors of timm/vit_base_patch32_clip_224.openai on the Hugging Face hub)."
        ) from error


def _of_folder(folder: Path, name: str, device: torch.device | str) -> ClipScorer:
    if not (folder / CONFIG).is_file():
        raise UserError(f"{folder} is no CLIP that open_clip opens: it has no {CONFIG}.")
    weights = next((path for ending in ("safetensors", "bin") for path in sorted(folder.glob(f"*.{ending}"))), None)
    if weights is None:
        raise UserError(
            f"{folder} has no weights: a file that ends with .safetensors or .bin is needed beside {CONFIG}."
        )
    return _opened(f"local-dir:{folder}", None, weights, name, device)


def _opened(model: str, pretrained: str | None, weights: Path, name: str, device: torch.device | str) -> ClipScorer:
    import open_clip
    from safetensors import SafetensorError

    try:
        network, _, preprocess = open_clip.create_model_and_transforms(model, pretrained=pretrained, device=device)
        tokens = open_clip.get_tokenizer(model)
    except (RuntimeError, ValueError, KeyError, OSError, pickle.UnpicklingError, SafetensorError) as error:
        raise UserError(
            f"open_clip cannot open {weights} as {model} ({type(error).__name__}): is it complete, and of this model? "
            "Weights are read without running code from them, so TorchScript files are refused: take safetensors."
        ) from error
    return ClipScorer(name, hashlib.sha256(weights.read_bytes()).hexdigest(), network, preprocess, tokens)


def to_pil(picture: Tensor) -> Image.Image:
    """A picture [3, H, W] uint8 as Pillow has it."""
    assert picture.dtype == torch.uint8, picture.dtype
    assert picture.shape == (3, *picture.shape[1:]), picture.shape
    return Image.fromarray(picture.permute(1, 2, 0).contiguous().cpu().numpy())


@torch.no_grad()
def in_batches(inputs: Sequence[Input], encoded: Callable[[Sequence[Input]], Tensor]) -> Tensor:
    """The embeddings [n, d] of all inputs, each of length 1; without any input [0, 0]."""
    parts = [encoded(inputs[start : start + BATCH]) for start in range(0, len(inputs), BATCH)]
    return F.normalize(torch.cat(parts).float(), dim=-1).cpu() if parts else torch.empty(0, 0)


def end_of(tokens: Tensor) -> int:
    """Where the end token is in [1, t]: the first of the highest number, which is how CLIP itself finds it."""
    return int(tokens[0].argmax())
