"""A FLUX from a diffusers pipeline folder, or from the Hugging Face hub's cache of one."""

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from ..config import UserError
from .fingerprints import fingerprint_of_files
from .flux_configs import SCHEDULER_DEFAULTS, max_tokens
from .hub import snapshot
from .keys import FluxShape
from .weight_files import header_of

FOLDERS = {
    "text_encoders": ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"),
    "autoencoder": ("vae",),
    "transformer": ("transformer",),
}
CONFIGS = {
    "transformer": "config.json",
    "vae": "config.json",
    "text_encoder": "config.json",
    "text_encoder_2": "config.json",
    "tokenizer": "tokenizer_config.json",
    "tokenizer_2": "tokenizer_config.json",
    "scheduler": "scheduler_config.json",
}
WITH_WEIGHTS = ("transformer", "vae", "text_encoder", "text_encoder_2")
SETTINGS = ["model_index.json", "*/*.json", "tokenizer*/*"]  # a few MB: all but the weights
GATED = (
    "FLUX.1-dev is gated: accept its licence on https://huggingface.co/black-forest-labs/FLUX.1-dev, run "
    "`hf auth login`, and try again; or name a local pipeline folder, or the single files."
)


KNOWN = {  # so that a memory estimate needs nothing from the hub
    "black-forest-labs/FLUX.1-dev": FluxShape(3072, 19, 38, 64, 4096, 768, guidance=True),
    "black-forest-labs/FLUX.1-schnell": FluxShape(3072, 19, 38, 64, 4096, 768, guidance=False),
}


class DiffusersFolder:
    """FluxParts from a local folder, or from a hub name such as "black-forest-labs/FLUX.1-dev"."""

    def __init__(self, name: str | Path):
        self.name = str(name)

    @cached_property
    def folder(self) -> Path:
        """Where the pipeline lies. Of a hub name, the settings are fetched when first asked for, weights when used."""
        folder = Path(self.name).expanduser()
        if not self._on_hub:
            if not (folder / "model_index.json").is_file():
                raise UserError(
                    f"{folder} is not a diffusers pipeline: it has no model_index.json. Give the folder that holds "
                    "model_index.json, transformer, vae, text_encoder, text_encoder_2, tokenizer and tokenizer_2."
                )
            return folder
        if folder.is_absolute() or self.name.count("/") != 1 or self.name.startswith((".", "~")):
            raise UserError(f"{self.name} is neither a folder nor a hub name such as black-forest-labs/FLUX.1-dev.")
        return snapshot(self.name, SETTINGS, GATED)

    @property
    def _on_hub(self) -> bool:
        return not Path(self.name).expanduser().is_dir()

    @cached_property
    def shape(self) -> FluxShape:
        """From the transformer's config.json."""
        if self.name in KNOWN:
            return KNOWN[self.name]
        config = self._config("transformer")
        return FluxShape(
            width=config["num_attention_heads"] * config["attention_head_dim"],
            double_blocks=config["num_layers"],
            single_blocks=config["num_single_layers"],
            in_channels=config["in_channels"],
            joint_dim=config["joint_attention_dim"],
            pooled_dim=config["pooled_projection_dim"],
            guidance=config["guidance_embeds"],
        )

    @cached_property
    def scheduler_config(self) -> dict[str, Any]:
        """From the scheduler's folder; what it leaves out, as diffusers fills it in."""
        return {**SCHEDULER_DEFAULTS, **self._config("scheduler")}

    @property
    def max_tokens(self) -> int:
        """What the tokenizer says, but at most what FLUX was trained with."""
        if self.name in KNOWN:
            return max_tokens(KNOWN[self.name])
        return min(max_tokens(self.shape), self._config("tokenizer_2").get("model_max_length", 512))

    def t5_tokenizer(self) -> Any:
        """From the folder tokenizer_2."""
        from transformers import T5TokenizerFast  # type: ignore[attr-defined]

        self._check("text_encoders")
        return T5TokenizerFast.from_pretrained(self.folder / "tokenizer_2")

    def text_encoders(self, device: torch.device | str, dtype: torch.dtype) -> tuple[Any, Any, Any, Any]:
        """As FluxPipeline loads them."""
        from transformers import CLIPTextModel, CLIPTokenizerFast, T5EncoderModel  # type: ignore[attr-defined]

        self._check("text_encoders")
        folder = self.folder / "text_encoder"
        loaded: Any = CLIPTextModel.from_pretrained(folder, torch_dtype=dtype, output_loading_info=True)
        clip, found = loaded
        if found["missing_keys"]:  # transformers 5 writes CLIP's keys in a way that 4 does not read
            raise UserError(f"{folder} holds a CLIP that this transformers cannot read: use transformers 5 or newer.")
        t5: Any = T5EncoderModel.from_pretrained(self.folder / "text_encoder_2", torch_dtype=dtype)
        clip_tokenizer = CLIPTokenizerFast.from_pretrained(self.folder / "tokenizer")
        return clip_tokenizer, clip.to(device), self.t5_tokenizer(), t5.to(device)

    def autoencoder(self, device: torch.device | str, dtype: torch.dtype) -> Any:
        """As FluxPipeline loads it."""
        from diffusers import AutoencoderKL

        self._check("autoencoder")
        return AutoencoderKL.from_pretrained(self.folder / "vae", torch_dtype=dtype).to(device)

    def transformer(self, device: torch.device | str, dtype: torch.dtype) -> Any:
        """As FluxPipeline loads it."""
        from diffusers import FluxTransformer2DModel

        self._check("transformer")
        return FluxTransformer2DModel.from_pretrained(self.folder / "transformer", torch_dtype=dtype).to(device)

    def fingerprint(self, part: str) -> str:
        """Of every settings, vocabulary and weight file of the part."""
        self._check(part)
        files = [file for name in FOLDERS[part] for file in sorted((self.folder / name).iterdir()) if file.is_file()]
        return fingerprint_of_files(files)

    def weights_bytes(self) -> dict[str, int]:
        """From the headers of the weight files."""
        return {
            part: sum(self._bytes(name) for name in names if name in WITH_WEIGHTS) for part, names in FOLDERS.items()
        }

    def missing(self) -> list[str]:
        """What a complete pipeline would have."""
        try:
            return [sentence for name in CONFIGS for sentence in self._absent(name)]
        except UserError as error:  # there is no folder at all
            return [str(error)]

    def _absent(self, name: str) -> list[str]:
        """The files of one of the pipeline's folders that should be there and are not."""
        folder = self.folder / name
        wanted = [folder / CONFIGS[name]]
        for index in folder.glob("*.safetensors.index.json"):
            wanted += [folder / shard for shard in sorted(set(_json(index)["weight_map"].values()))]
        if self._on_hub and name in WITH_WEIGHTS and not (self._weights(name) and all(map(Path.is_file, wanted))):
            return [f"The weights of {self.name}/{name} are not in the Hugging Face cache; the first run fetches them."]
        sentences = [
            f"{path} is missing: copy the pipeline's {name} folder there." for path in wanted if not path.is_file()
        ]
        if name in WITH_WEIGHTS and not self._weights(name):
            sentences.append(f"{folder} has no .safetensors file: copy the pipeline's {name} folder there.")
        return sentences

    def _weights(self, name: str) -> list[Path]:
        return sorted((self.folder / name).glob("*.safetensors"))

    def _bytes(self, name: str) -> int:
        return sum(entry.bytes for file in self._weights(name) for entry in header_of(file).values())

    def _check(self, part: str) -> None:
        if self._on_hub:
            snapshot(self.name, [*SETTINGS, *(f"{name}/*.safetensors" for name in FOLDERS[part])], GATED)
        absent = [sentence for name in FOLDERS[part] for sentence in self._absent(name)]
        if absent:
            raise UserError(" ".join(absent))

    def _config(self, name: str) -> dict[str, Any]:
        path = self.folder / name / CONFIGS[name]
        if not path.is_file():
            raise UserError(" ".join(self._absent(name)))
        return _json(path)


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise UserError(f"{path} is not readable JSON ({error}): copy it again.") from error


MINIATURE = Path(__file__).parents[1] / "data" / "miniature"  # by place: inside ComfyUI the package has another name


class Miniature(DiffusersFolder):
    """A small, real FLUX of rendered people that ships, so that nothing is downloaded.

    Its weights are stored in 16 bits and computed with in 32.
    """

    def __init__(self) -> None:
        if not (MINIATURE / "model_index.json").is_file():
            raise UserError(
                f"The miniature's weights are not in {MINIATURE}: the package is incomplete. Install it again."
            )
        super().__init__(MINIATURE)
