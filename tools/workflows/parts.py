"""What several workflows have: notes, loaders, samplers."""

from pathlib import Path
from typing import Any

from metalora.settings import PRESETS

from .graph import Column, Wire


def words(name: str) -> str:
    """The note of this name; a paragraph is one line, since the page breaks lines itself."""
    text = (Path(__file__).parent / "notes" / f"{name}.md").read_text(encoding="utf-8").rstrip()
    lines: list[str] = []
    for line in text.splitlines():
        if lines and line and lines[-1] and not line[0].isdigit():
            lines[-1] += " " + line
        else:
            lines.append(line)
    return "\n".join(lines)


def sampled(column: Column, *, model: Wire, text: Wire, latent: Wire, title: str, steps: int) -> Wire:
    """A sampler; the image's latent."""
    return column.add(
        "KSampler",
        title,
        model=model,
        positive=text,
        negative=text,
        latent_image=latent,
        steps=steps,
        cfg=1.0,
        sampler_name="euler",
        scheduler="simple",
    )["LATENT"]


def flux_loaders(column: Column) -> tuple[Wire, Wire, Wire]:
    """(MODEL, CLIP, VAE) of FLUX.1-dev from the core's loaders."""
    model = column.add("UNETLoader", unet_name="flux1-dev.safetensors")["MODEL"]
    clip = column.add(
        "DualCLIPLoader", clip_name1="clip_l.safetensors", clip_name2="t5xxl_fp16.safetensors", type="flux"
    )["CLIP"]
    return model, clip, column.add("VAELoader", vae_name="ae.safetensors")["VAE"]


def miniature(*names: str) -> dict[str, Any]:
    """The miniature's own settings of these names."""
    return {name: PRESETS["miniature"][name] for name in names}
