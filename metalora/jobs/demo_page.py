"""The demo as one HTML page that needs no other file: what went in, what came out, and what the numbers mean."""

from pathlib import Path

from ..store.decode import decode
from ..store.files import write_bytes
from ..store.report.page import render
from ..store.report.pictures import jpeg_uri
from .demo_scores import Likenesses
from .demonstration import CONTROL, Demonstration
from .generate import Image
from .personalize import Personalized

MISSING = "-"


def write_demo_page(made: Demonstration) -> None:
    """`index.html`, with every picture inside it."""
    page = render(
        "demo.html",
        title="One photo, three ways to learn it",
        made=made,
        opening=opening(made),
        scores=[score_row(made.likeness, label) for label in made.pictures] if made.likeness else [],
        trainings=[training_row(made.labels[method], result) for method, result in made.results.items()],
        likeness_of=lambda label, image: likeness_of(made, label, image),
        picture_uri=picture_uri,
    )
    write_bytes(made.page, page.encode())


def opening(made: Demonstration) -> list[str]:
    """What this page is, in two sentences, and what it is not."""
    steps = len(made.results["meta-lora"].training.losses)
    texts = [
        f"One photo was learned from in {steps} short steps, three times: as Meta-LoRA, as a plain LoRA on the whole "
        "photo, and as a plain LoRA on crops around the face. Below are the same prompts without and with each of them."
    ]
    if made.labels["meta-lora"] == CONTROL:
        texts.append(
            "The Meta-Down of this demo is a random one, not meta-trained: its row shows the method's mechanics only."
        )
    if made.backbone == "tiny":
        texts.append("The tiny backbone has random weights: its images are noise, and only the path is real.")
    return texts


def score_row(all_of_them: Likenesses, label: str) -> list[str]:
    """One method's numbers as text."""
    one = all_of_them.by_method[label]
    found = f"{one.found} of {one.images}"
    if one.r_facesim is None or one.facesim is None:
        return [label, *[MISSING] * 4, found]
    place = (one.r_facesim - all_of_them.floor) / (all_of_them.ceiling - all_of_them.floor)
    copying = one.facesim - one.r_facesim
    return [label, f"{one.r_facesim:.3f}", f"{place:.0%}", f"{one.facesim:.3f}", f"{copying:+.3f}", found]


def training_row(label: str, result: Personalized) -> list[str]:
    """One method's losses, time and file."""
    before, after = result.training.validation
    last = result.training.losses[-25:]
    return [
        label,
        f"{before:.4f} → {after:.4f}",
        f"{sum(last) / len(last):.4f}",
        f"{result.training.seconds_per_step:.3f} s",
        f"{result.lora.stat().st_size / 1e6:.2f} MB",
        result.lora.name,
    ]


def likeness_of(made: Demonstration, label: str, image: Image) -> str:
    """The number under an image."""
    if made.likeness is None:
        return ""
    value = made.likeness.by_method[label].of_image[image.path]
    return "no face" if value is None else f"{value:.3f}"


def picture_uri(path: Path, widest: int) -> str:
    """A picture as a JPEG inside the page."""
    picture = decode(path)
    picture.thumbnail((widest, 10 * widest))
    return jpeg_uri(picture, quality=90, subsampling=0)
