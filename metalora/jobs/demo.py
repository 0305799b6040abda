"""The whole path on a portrait that comes along: crops, three ways to personalize, finished files, images, a page."""

from pathlib import Path

from ..backbones.protocol import Backbone
from ..config import CropConfig, GenerateConfig, PersonalizeConfig, Phase, with_preset
from ..store.cache import Cache
from . import Job
from .crops import write_crops
from .demo_page import write_demo_page
from .demo_person import demo_person
from .demo_scores import likenesses
from .demonstration import BASE, Demonstration, labels_of
from .generate import Image, generate_images
from .meta_downs import RANDOM, shipped_meta_down
from .personalize import Personalized, personalize_photos
from .plots import save_loss_curve


def demonstrate(backbone: Backbone, out: Path, cache: Cache, preset: str) -> Job[Demonstration]:
    """Fill `out` with crops, LoRA files, images and `index.html`; an earlier demo there is replaced."""
    person = demo_person(preset)
    crop_config, sampling = with_preset(CropConfig, preset), with_preset(GenerateConfig, preset)
    yield Phase(f"the portrait: {person.credit}")
    sheet = yield from write_crops(person.portrait, out / "crops", crop_config, multiple=backbone.multiple)

    shipped = shipped_meta_down(backbone.name, person.class_name)
    labels = labels_of(trained=shipped is not None)
    results: dict[str, Personalized] = {}
    pictures: dict[str, list[Image]] = {BASE: []}
    for method, label in labels.items():
        config = with_preset(PersonalizeConfig, preset, method=method, class_name=person.class_name)
        lora = out / f"{method}.safetensors"
        results[method] = yield from personalize_photos(
            backbone,
            [person.portrait],
            lora,
            config,
            crop_config,
            meta_down=str(shipped or RANDOM) if method == "meta-lora" else None,
            cache=cache,
            overwrite=True,
        )
        images = yield from generate_images(
            backbone,
            person.prompts,
            out / "images" / method,
            sampling,
            lora=lora,
            compare=method == "meta-lora",
            cache=cache,
            overwrite=True,
        )
        pictures[label] = [image for image in images if image.lora]
        pictures[BASE] += [image for image in images if not image.lora]

    yield Phase("comparing faces")
    curve = out / "loss.png"
    save_loss_curve(curve, {labels[method]: result.training.losses for method, result in results.items()})
    page = out / "index.html"
    made = Demonstration(preset, person, labels, sheet, results, pictures, likenesses(person, pictures), curve, page)
    write_demo_page(made)
    return made
