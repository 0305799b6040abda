"""The base models that have a name: where they are, how large, under which licence; their settings; fetching them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..config import UserError

FLUX_1 = {
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "num_layers": 19,
    "num_single_layers": 38,
    "in_channels": 64,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 768,
}


def klein(doubles: int, singles: int, heads: int, text: int) -> dict[str, Any]:
    """The settings of a FLUX.2-klein of these sizes."""
    sizes = {"num_layers": doubles, "num_single_layers": singles, "num_attention_heads": heads}
    return {
        **sizes,
        "in_channels": 128,
        "attention_head_dim": 128,
        "joint_attention_dim": text,
        "guidance_embeds": False,
    }


@dataclass(frozen=True)
class Base:
    """A base model that --backbone knows by a name."""

    hub: str  # its repository on the Hugging Face hub
    pipeline: str  # diffusers' class
    licence: str
    billions: float  # parameters of the transformer
    text_billions: float  # of its text encoders
    gated: bool = False  # whether the hub wants a login, and the licence accepted
    draw_with: str = ""  # the distilled base of the same family that images are usually made with
    config: Mapping[str, Any] = field(default_factory=dict)  # of the transformer, where it is not its class's default

    def __str__(self) -> str:
        sizes = f"{self.billions:g} billion parameters and {self.text_billions:g} of text encoders"
        whole = 2 * (self.billions + self.text_billions)
        gate = "gated: the hub wants a login" if self.gated else "not gated"
        return f"{self.hub}: licence {self.licence}, {gate}; {sizes}, about {whole:.0f} GB in bf16"

    @property
    def gate(self) -> str:
        """What to do where it cannot be fetched."""
        if not self.gated:
            return "Go online for the first run, or name a local pipeline folder."
        return (
            f"{self.hub} is gated: accept its licence on https://huggingface.co/{self.hub}, run `hf auth login`, and "
            "try again; or name a local pipeline folder."
        )


BASES = {
    "klein-4b": Base(
        "black-forest-labs/FLUX.2-klein-base-4B",
        *("Flux2KleinPipeline", "Apache-2.0", 3.9, 4.0),
        draw_with="klein-4b-distilled",
        config=klein(5, 20, 24, 7680),
    ),
    "klein-4b-distilled": Base(
        "black-forest-labs/FLUX.2-klein-4B",
        *("Flux2KleinPipeline", "Apache-2.0", 3.9, 4.0),
        config=klein(5, 20, 24, 7680),
    ),
    "klein-9b": Base(
        "black-forest-labs/FLUX.2-klein-base-9B",
        *("Flux2KleinPipeline", "FLUX non-commercial", 9.1, 8.2),
        gated=True,
        config=klein(8, 24, 32, 12288),
    ),
    "z-image": Base("Tongyi-MAI/Z-Image", "ZImagePipeline", "Apache-2.0", 6.2, 4.0, draw_with="z-image-turbo"),
    "z-image-turbo": Base("Tongyi-MAI/Z-Image-Turbo", "ZImagePipeline", "Apache-2.0", 6.2, 4.0),
    "qwen-image": Base("Qwen/Qwen-Image", "QwenImagePipeline", "Apache-2.0", 20.4, 8.3),
    "krea-2": Base(
        "krea/Krea-2-Raw", "Krea2Pipeline", "Krea 2 community", 12.9, 4.4, gated=True, draw_with="krea-2-turbo"
    ),
    "krea-2-turbo": Base("krea/Krea-2-Turbo", "Krea2Pipeline", "Krea 2 community", 12.9, 4.4, gated=True),
    "flux-dev": Base(
        "black-forest-labs/FLUX.1-dev",
        *("FluxPipeline", "FLUX.1-dev non-commercial", 11.9, 4.9),
        gated=True,
        config={**FLUX_1, "guidance_embeds": True},
    ),
    "flux-schnell": Base(
        "black-forest-labs/FLUX.1-schnell",
        *("FluxPipeline", "Apache-2.0", 11.9, 4.9),
        gated=True,
        config={**FLUX_1, "guidance_embeds": False},
    ),
}
ON_HUB = {base.hub: base for base in BASES.values()}
GATED = "Check the name; where it is gated, accept its licence there and run `hf auth login`."

# A backbone's own defaults, where they differ from the paper's for FLUX.1-dev.
PRESETS: dict[str, dict[str, int | float | str | bool]] = {
    # Rates and steps were sought on people who are measured nowhere (docs/reproduction.md). Its photos are close
    # portraits: no crops.
    "miniature": {
        "resolution": 128,
        "width": 128,
        "height": 128,
        "sampling_steps": 24,
        "guidance": 2.5,
        "steps": 150,
        "learning_rate": 1e-3,
        "rank": 16,
        "time_shift": 0.5,
        "background_weight": 0.1,
        "learn_from": "whole",
        "flips": False,
    },
    # Sampling as each base's own pipeline or model card has it. Nobody has measured rate, rank and steps on these:
    # they stay the paper's for FLUX.1-dev.
    "klein-4b": {"sampling_steps": 50, "guidance": 4.0},
    "klein-4b-distilled": {"sampling_steps": 4, "guidance": 1.0},
    "klein-9b": {"sampling_steps": 50, "guidance": 4.0},
    "z-image": {"sampling_steps": 50, "guidance": 5.0},
    "z-image-turbo": {"sampling_steps": 8, "guidance": 0.0},
    "qwen-image": {"sampling_steps": 50, "guidance": 4.0},
    "krea-2": {"sampling_steps": 28, "guidance": 4.5},
    "krea-2-turbo": {"sampling_steps": 8, "guidance": 0.0},
    "flux-schnell": {"sampling_steps": 4, "guidance": 0.0},
    # The random test network: it learns nothing worth seeing, but every path runs in seconds.
    "tiny": {"resolution": 128, "width": 128, "height": 128, "sampling_steps": 8, "learning_rate": 3e-3, "steps": 60},
}

# What a method wants that is not the default one, by backbone; "" is any other. A plain LoRA takes 625 steps (paper).
METHOD_PRESETS: dict[str, dict[str, dict[str, int | float | str]]] = {
    "": {"lora": {"steps": 625}},
    "miniature": {"lora": {"steps": 150, "learning_rate": 5e-4}},
    "tiny": {},
}


def snapshot(name: str, files: list[str], otherwise: str = "") -> Path:
    """The folder of a hub repository with the named files; `otherwise` tells the user what to do if there is none."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=files))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        lines = str(error).strip().splitlines() or [""]
        then = otherwise or (ON_HUB[name].gate if name in ON_HUB else GATED)
        raise UserError(
            f"{name} is neither in the Hugging Face cache nor could it be fetched "
            f"({type(error).__name__}: {lines[0]}). {then}"
        ) from error
