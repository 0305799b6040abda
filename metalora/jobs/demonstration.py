"""What the demo made, and the same in a few lines for a terminal."""

from dataclasses import dataclass
from pathlib import Path

from .crops import CropSheet
from .demo_person import DemoPerson
from .demo_scores import Likenesses
from .generate import Image
from .personalize import Personalized

BASE = "without LoRA"
META_LORA, CONTROL = "Meta-LoRA", "Meta-LoRA (random Meta-Down)"


def labels_of(trained: bool) -> dict[str, str]:
    """What each method is called on the page; a Meta-Down that has learned nothing is not to be taken for one."""
    return {"meta-lora": META_LORA if trained else CONTROL, "lora": "LoRA, whole photo", "lora-crops": "LoRA + crops"}


@dataclass(frozen=True)
class Demonstration:
    """Files by method, images by label, and how like the person they are."""

    backbone: str
    person: DemoPerson
    labels: dict[str, str]  # by method
    crops: CropSheet
    results: dict[str, Personalized]  # by method
    pictures: dict[str, list[Image]]  # by label, BASE first
    likeness: Likenesses | None
    curve: Path
    page: Path


def summary(made: Demonstration) -> str:
    """A table of what was measured, for a terminal."""
    lines = [f"{'':30}validation loss       s/step   R-FaceSim   LoRA file"]
    for method, result in made.results.items():
        before, after = result.training.validation
        likeness = made.likeness.by_method[made.labels[method]].r_facesim if made.likeness else None
        numbers = f"{before:.4f} -> {after:.4f}    {result.training.seconds_per_step:.3f}"
        like = f"{likeness:.3f}" if likeness is not None else "-"
        lines.append(f"{made.labels[method]:30}{numbers}    {like:9}   {result.lora}")
    if made.likeness:
        base = made.likeness.by_method[BASE].r_facesim
        lines.append(
            f"R-FaceSim lies between other people ({made.likeness.floor:.3f}) and the person's own photos "
            f"({made.likeness.ceiling:.3f}); without a LoRA it is {'-' if base is None else f'{base:.3f}'}."
        )
    if made.backbone == "tiny":
        lines.append("The tiny backbone has random weights: its images are noise, and only the path is real.")
    return "\n".join(lines)
