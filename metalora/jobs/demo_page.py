"""The demo as one HTML page that needs no other file: what went in, what came out, and what the numbers mean."""

import base64
import io
from pathlib import Path

from ..store.decode import decode
from ..store.files import write_bytes
from ..store.report.html import Html, element, joined, note, paragraph, section, table
from ..store.report.page import whole_page
from .demo_scores import Likenesses
from .demonstration import CONTROL, Demonstration
from .generate import Image

WIDEST = 1200  # pixels of the crop sheet on the page
MISSING = "-"


def write_demo_page(made: Demonstration) -> None:
    """`index.html`, with every picture inside it."""
    body = joined([opening(made), what_went_in(made), what_came_out(made), how_alike(made), how_it_was_learned(made)])
    write_bytes(made.page, whole_page("One photo, three ways to learn it", body).encode())


def opening(made: Demonstration) -> Html:
    """What this page is, in two sentences, and what it is not."""
    steps = len(made.results["meta-lora"].training.losses)
    text = (
        f"One photo was learned from in {steps} short steps, three times: as Meta-LoRA, as a plain LoRA on the whole "
        "photo, and as a plain LoRA on crops around the face. Below are the same prompts without and with each of them."
    )
    random = "The Meta-Down of this demo is a random one, not meta-trained: its row shows the method's mechanics only."
    tiny = "The tiny backbone has random weights: its images are noise, and only the path is real."
    notes = [note(random)] if made.labels["meta-lora"] == CONTROL else []
    notes += [note(tiny)] if made.backbone == "tiny" else []
    return joined([paragraph(text), *notes])


def what_went_in(made: Demonstration) -> Html:
    """The portrait, its crops, and the photos that were kept aside."""
    figures = [figure(made.person.portrait, "the portrait", "learned from this photo")]
    figures += [
        figure(path, "another photo of the person", "kept aside, to compare with") for path in made.person.unseen
    ]
    crops = len(made.crops.planned.crops)
    return section(
        "What went in",
        paragraph(f"{made.person.credit}."),
        grid(figures),
        paragraph(f"The {crops} crops around the face that Meta-LoRA and LoRA + crops learn from:"),
        wide(made.crops.sheet, "every crop of the portrait"),
    )


def what_came_out(made: Demonstration) -> Html:
    """A row of images for each prompt: without a LoRA, and with each."""
    rows = []
    for prompt in made.person.prompts:
        figures = [
            figure(image.path, f"{label}: {prompt}", label, likeness_of(made, label, image))
            for label, images in made.pictures.items()
            for image in images
            if image.prompt == prompt
        ]
        rows += [element("p", {"class": "prompt"}, f"“{prompt}”"), grid(figures)]
    text = "The four images of a prompt start from the same noise."
    if made.likeness:
        text += " The number is the image's likeness to the photos that were kept aside."
    return section("What came out", paragraph(text), *rows)


def how_alike(made: Demonstration) -> Html:
    """R-FaceSim of each method between floor and ceiling."""
    if made.likeness is None:
        text = "There is no second photo of this person here, so likeness cannot be measured honestly."
        return section("How like the person", paragraph(text))
    text = (
        f"R-FaceSim is the mean cosine of SFace between the images' faces and {len(made.person.unseen)} photos of the "
        f"person that nothing was learned from. Here other people reach {made.likeness.floor:.3f} and the person's own "
        f"photos {made.likeness.ceiling:.3f}; the position places a method between the two. One person is an example, "
        "not a measurement: the benchmark has 16 and gives intervals."
    )
    columns = ["", "R-FaceSim", "position", "FaceSim", "copying", "faces found"]
    rows = [score_row(made.likeness, label) for label in made.pictures]
    return section("How like the person", paragraph(text), table("Likeness, by method", columns, rows))


def score_row(all_of_them: Likenesses, label: str) -> list[str]:
    """One method's numbers as text."""
    one = all_of_them.by_method[label]
    found = f"{one.found} of {one.images}"
    if one.r_facesim is None or one.facesim is None:
        return [label, *[MISSING] * 4, found]
    place = (one.r_facesim - all_of_them.floor) / (all_of_them.ceiling - all_of_them.floor)
    copying = one.facesim - one.r_facesim
    return [label, f"{one.r_facesim:.3f}", f"{place:.0%}", f"{one.facesim:.3f}", f"{copying:+.3f}", found]


def how_it_was_learned(made: Demonstration) -> Html:
    """Losses, times and files."""
    rows = []
    for method, result in made.results.items():
        before, after = result.training.validation
        size = result.lora.stat().st_size / 1e6
        rows.append(
            [
                made.labels[method],
                f"{before:.4f} → {after:.4f}",
                f"{sum(result.training.losses[-25:]) / len(result.training.losses[-25:]):.4f}",
                f"{result.training.seconds_per_step:.3f} s",
                f"{size:.2f} MB",
                result.lora.name,
            ]
        )
    columns = ["", "validation loss", "last training losses", "a step", "file size", "LoRA file"]
    text = "The files are ordinary LoRAs: stock loaders of ComfyUI and diffusers read them."
    return section(
        "How it was learned",
        table("Training, by method", columns, rows),
        wide(made.curve, "training loss of each method over its steps"),
        paragraph(text),
    )


def likeness_of(made: Demonstration, label: str, image: Image) -> str:
    """The number under an image."""
    if made.likeness is None:
        return ""
    value = made.likeness.by_method[label].of_image[image.path]
    return "no face" if value is None else f"{value:.3f}"


def figure(path: Path, words: str, caption: str, small: str = "") -> Html:
    """A picture with what it shows under it."""
    below = [caption, element("small", {}, small)] if small else [caption]
    image = element("img", {"src": picture_uri(path, 256), "alt": words})
    return element("figure", {}, image, element("figcaption", {}, *below))


def wide(path: Path, words: str) -> Html:
    """A picture as wide as the page."""
    return element("img", {"src": picture_uri(path, WIDEST), "alt": words, "class": "wide"})


def grid(figures: list[Html]) -> Html:
    """Figures side by side, as many as the screen is wide."""
    return element("div", {"class": "pictures"}, *figures)


def picture_uri(path: Path, widest: int) -> str:
    """A picture as a JPEG inside the page."""
    picture = decode(path)
    picture.thumbnail((widest, 10 * widest))
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=90, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()
