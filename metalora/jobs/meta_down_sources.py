"""Meta-Downs that need no stage 1: distilled from ordinary LoRAs; and what is in any of them."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..backbones.architecture import PRESETS
from ..backbones.protocol import Backbone
from ..config import Phase, Step, UserError
from ..method.flow import generator_of
from ..method.shared_directions import shared_directions
from ..store import files
from . import Job
from .lora import LoRA, load_lora
from .personalize import check_output
from .start import downs_of


@dataclass(frozen=True)
class Distilled:
    """What was written, and which files were taken and left."""

    path: Path
    sites: str
    taken: list[str]
    left: list[str]


def covered(names: Collection[str], backbone: Backbone, source: Path) -> str:
    """The largest preset of sites among these."""
    absent: list[str] = []
    for preset in PRESETS:
        absent = [site.name for site in backbone.sites(preset) if site.name not in names]
        if not absent:
            return preset
    raise UserError(
        f"{source} covers {len(names)} sites, but {preset!r} needs {len(absent)} more, such as {absent[0]}. "
        f"A Meta-Down has to cover one of: {', '.join(PRESETS)}."
    )


def meta_down_from_loras(
    folder: Path,
    out: Path,
    backbone: Backbone,
    domain: str,
    meta_rank: int,
    *,
    overwrite: bool = False,
) -> Job[Distilled]:
    """Distill ordinary LoRAs of people, of any key format and rank, into a Meta-Down: what their updates share most."""
    check_output(out, overwrite)
    paths = lora_files(folder)
    width = min(site.in_features for site in backbone.architecture.places)
    if not 1 <= meta_rank <= width:
        raise UserError(f"--meta-rank must be from 1 to {width}, the base's width, got {meta_rank}.")
    if len(paths) < 2:
        raise UserError(f"{folder} has {len(paths)} .safetensors files; at least 2 LoRAs of people are needed.")
    yield Phase(f"reading {len(paths)} LoRAs")
    loras: dict[str, LoRA] = {}
    skipped: dict[str, str] = {}
    for count, path in enumerate(paths, 1):
        try:
            lora, said = load_lora(path, backbone)
            covered(lora, backbone, path)
            loras[path.name] = lora
        except UserError as error:
            skipped[path.name] = str(error)
            said = [f"skipped {path.name}: {error}"]
        for sentence in said:
            yield Phase(sentence)
        yield Step(count, len(paths))
    if len(loras) < 2:
        raise UserError(
            f"{len(loras)} of the {len(paths)} files in {folder} could be used; at least 2 LoRAs of people are needed. "
            f"The first that was skipped: {next(iter(skipped.values()))}"
        )
    preset = covered(set.intersection(*(set(lora) for lora in loras.values())), backbone, folder)
    sites = backbone.sites(preset)
    yield Phase(f"finding the {meta_rank} directions that are shared most at {len(sites)} sites")
    downs = {}
    for count, site in enumerate(sites, 1):
        generator = generator_of("from loras", site.name)
        downs[site.name] = shared_directions([lora[site.name] for lora in loras.values()], meta_rank, generator)
        yield Step(count, len(sites))
    write(out, downs, backbone, domain, preset, {"origin": f"distilled from {len(loras)} LoRAs"})
    return Distilled(out, preset, list(loras), list(skipped))


def lora_files(folder: Path) -> list[Path]:
    """The LoRAs in a folder by name; the adapter files that lie beside ours are not among them."""
    found = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    return [path for path in found if not path.name.endswith((".adapter.safetensors", ".state.safetensors"))]


def write(
    out: Path, downs: dict[str, Tensor], backbone: Backbone, domain: str, preset: str, origin: dict[str, str]
) -> None:
    """A Meta-Down file like the one that stage 1 writes."""
    metadata = {
        "base": backbone.name,
        **backbone.architecture.metadata,
        "domain": domain,
        "sites": preset,
        "meta_rank": str(min(map(len, downs.values()))),
        **origin,
    }
    files.write(out, {f"{name}.down": down for name, down in downs.items()}, "meta-down", metadata)


def inspect_meta_down(path: Path) -> str:
    """How many directions each kind of site has, how long its rows are, and how evenly they are spread."""
    tensors, _ = files.read(path, ("meta-down",))
    kinds: dict[str, list[Tensor]] = {}
    for name, down in downs_of(path, tensors).items():
        words = name.split(".")
        kinds.setdefault(f"{words[0]}.*.{'.'.join(words[2:])}", []).append(down.double())
    lines = [f"{'sites':58}{'count':>6}{'r1 x inputs':>16}{'row length':>12}{'effective rank':>16}"]
    for kind, downs in sorted(kinds.items()):
        length = sum(down.norm(dim=1).mean().item() for down in downs) / len(downs)
        spread = sum(effective_rank(down) for down in downs) / len(downs)
        size = " x ".join(map(str, downs[0].shape))
        lines.append(f"{kind:58}{len(downs):6}{size:>16}{length:12.4f}{spread:16.2f}")
    lines.append("A random Meta-Down has rows of length 0.577 and an effective rank just below r1.")
    return "\n".join(lines)


def effective_rank(down: Tensor) -> float:
    """exp of the entropy of the squared singular values: r1 if all directions are equally strong, 1 if one is all."""
    strengths = torch.linalg.svdvals(down.double())
    share = (strengths / strengths.max().clamp_min(1e-300)).square()  # of the largest, whose square may not exist
    share = share / share.sum().clamp_min(1e-300)
    return float(torch.exp(-(share * share.clamp_min(1e-30).log()).sum()))
