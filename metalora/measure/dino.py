"""DINO through transformers: how alike two pictures are in shape and detail, whatever a text would say of them.

    DINO = 100 x cosine of the class tokens of picture and reference

As DreamBooth's evaluation does, the model is ViT-S/16 of the first DINO, `facebook/dino-vits16`; a folder or another
name of the Hugging Face hub (a DINOv2, `facebook/dinov2-small`) works as well. Scores of two models cannot be compared.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import UserError

DEFAULT = "facebook/dino-vits16"
KINDS = ("vit", "dinov2")  # model types whose first token stands for the picture
BATCH = 64


class DinoScorer:
    """An open DINO. Embeddings are float32 of length 1, on the CPU."""

    def __init__(self, name: str, digest: str, model: Any, processor: Any):
        self.name = name
        self.digest = digest  # sha256 of the weights
        self._model, self._processor = model.eval().requires_grad_(False), processor

    @torch.no_grad()
    def images(self, pictures: Sequence[Tensor]) -> Tensor:
        """[n, d] of pictures [3, H, W] uint8, each of any size, through the model's own preprocessing."""
        vectors = []
        for start in range(0, len(pictures), BATCH):
            signals = torch.cat([self._signal(picture) for picture in pictures[start : start + BATCH]])
            tokens = self._model(signals.to(self._model.device)).last_hidden_state
            vectors.append(F.normalize(tokens[:, 0].float(), dim=-1).cpu())
        return torch.cat(vectors) if vectors else torch.empty(0, 0)

    def _signal(self, picture: Tensor) -> Tensor:
        assert picture.dtype == torch.uint8, picture.dtype
        image = picture.permute(1, 2, 0).contiguous().cpu().numpy()
        return self._processor(image, input_data_format="channels_last", return_tensors="pt").pixel_values


def load_dino(name_or_path: str = DEFAULT, device: torch.device | str = "cpu") -> DinoScorer:
    """The DINO of this folder or hub name, fetched if it is not there; UserError if it cannot be had."""
    from safetensors import SafetensorError
    from transformers import AutoImageProcessor, AutoModel

    folder = _folder(name_or_path)
    kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    if kind not in KINDS:
        raise UserError(f"{name_or_path} is a model of type {kind!r}; DINO scores need one of {', '.join(KINDS)}.")
    try:
        model = AutoModel.from_pretrained(folder, use_safetensors=_weights(folder).suffix == ".safetensors")
        processor = AutoImageProcessor.from_pretrained(folder)
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        first_line = (str(error).strip().splitlines() or [""])[0]
        raise UserError(f"{folder} cannot be opened as a DINO ({first_line}). Get {DEFAULT} anew.") from error
    digest = hashlib.sha256(_weights(folder).read_bytes()).hexdigest()
    return DinoScorer(f"dino-{Path(name_or_path).name}", digest, model.to(device), processor)


def _folder(name_or_path: str) -> Path:
    """A folder with the model's files: the given one, or the hub's."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    path = Path(name_or_path)
    if not path.is_dir():
        try:
            path = Path(snapshot_download(name_or_path, allow_patterns=["*.json", "model.safetensors", "*.bin"]))
        except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
            raise UserError(
                f"There is no folder {name_or_path}, and it could not be fetched from the Hugging Face hub "
                f"({type(error).__name__}). Connect once, or give a folder with {DEFAULT}'s files."
            ) from error
    wanted = ("config.json", "preprocessor_config.json")
    if missing := [name for name in wanted if not (path / name).is_file()]:
        raise UserError(f"{path} is no DINO for transformers: {' and '.join(missing)} are not in it.")
    _weights(path)
    return path


def _weights(folder: Path) -> Path:
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{folder} has no weights: model.safetensors or pytorch_model.bin is needed.")
