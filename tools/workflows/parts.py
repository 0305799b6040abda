"""What several workflows have: notes, loaders, samplers."""

from pathlib import Path
from typing import Any

from metalora.settings import PRESETS

from .bases import BASES, Base
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


def sampled(
    column: Column,
    *,
    model: Wire,
    text: Wire,
    latent: Wire,
    title: str,
    steps: int,
    negative: Wire | None = None,
    cfg: float = 1.0,
) -> Wire:
    """A sampler; the image's latent."""
    return column.add(
        "KSampler",
        title,
        model=model,
        positive=text,
        negative=negative or text,
        latent_image=latent,
        steps=steps,
        cfg=cfg,
        sampler_name="euler",
        scheduler="simple",
    )["LATENT"]


def loaders(column: Column, base: Base) -> tuple[Wire, Wire, Wire]:
    """(MODEL, CLIP, VAE) of a base from the core's loaders."""
    model = column.add("UNETLoader", unet_name=base.model)["MODEL"]
    if len(base.clip) == 2:
        clip = column.add("DualCLIPLoader", clip_name1=base.clip[0], clip_name2=base.clip[1], type=base.clip_type)
    else:
        clip = column.add("CLIPLoader", clip_name=base.clip[0], type=base.clip_type)
    return model, clip["CLIP"], column.add("VAELoader", vae_name=base.vae)["VAE"]


def flux_loaders(column: Column) -> tuple[Wire, Wire, Wire]:
    """(MODEL, CLIP, VAE) of FLUX.1-dev."""
    return loaders(column, BASES[0])


def miniature(*names: str) -> dict[str, Any]:
    """The miniature's own settings of these names."""
    return {name: PRESETS["miniature"][name] for name in names}
