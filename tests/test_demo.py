"""The demo: its page needs no other file, shows what the run made, and says how like the person the images are."""

import base64
import io
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from metalora.backbones.load import load_backbone
from metalora.config import PRESETS
from metalora.jobs import demo, run
from metalora.jobs.demo_page import opening
from metalora.jobs.demo_person import demo_person
from metalora.jobs.demonstration import BASE, META_LORA, Demonstration, labels_of, summary
from metalora.store.cache import Cache
from metalora.store.images import photo_digest, read_photo


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Demonstration:
    """The tiny backbone on the miniature's rendered person: the path with a likeness to measure."""
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "tiny", PRESETS["tiny"] | {"steps": 3, "sampling_steps": 1})
        patch.setattr(demo, "demo_person", lambda preset: demo_person("miniature"))
        return run(demo.demonstrate(load_backbone("tiny", device="cpu"), folder, Cache(folder / "cache"), "tiny"))


def test_the_page_needs_no_other_file_and_no_network(made):
    page = made.page.read_text()
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert sources
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert not re.search("https?:", page)
    assert len(page) < 5e6


def test_every_image_on_the_page_is_one_that_the_run_wrote(made):
    shown = [
        Image.open(io.BytesIO(base64.b64decode(data)))
        for data in re.findall(r'src="data:image/jpeg;base64,([^"]*)"', made.page.read_text())
    ]
    written = [image.path for images in made.pictures.values() for image in images]
    written += [made.person.portrait, *made.person.unseen, made.crops.sheet, made.curve]
    assert len(shown) == len(written)
    small = [np.asarray(Image.open(path).convert("RGB").resize((16, 16)), dtype=float) for path in written]
    for picture in shown:
        seen = np.asarray(picture.resize((16, 16)), dtype=float)
        assert min(np.abs(seen - one).mean() for one in small) < 3


def test_a_random_meta_down_is_called_one_and_a_trained_one_is_not(made):
    assert "random" in made.labels["meta-lora"]
    assert "not meta-trained" in str(opening(made))
    labels = labels_of(trained=True)
    assert labels["meta-lora"] == META_LORA
    assert "not meta-trained" not in str(opening(replace(made, labels=labels)))


def test_each_prompt_has_an_image_without_and_with_each_lora_from_the_same_noise(made):
    assert list(made.pictures) == [BASE, *made.labels.values()]
    for images in made.pictures.values():
        assert [image.prompt for image in images] == list(made.person.prompts)
        assert {image.seed for image in images} == {0}


def test_likeness_is_measured_on_photos_that_nothing_was_learned_from(made):
    learned = photo_digest(read_photo(made.person.portrait))
    assert len(made.person.unseen) >= 3
    assert learned not in {photo_digest(read_photo(path)) for path in made.person.unseen}
    assert made.likeness is not None
    assert made.likeness.floor < made.likeness.ceiling
    assert {one.images for one in made.likeness.by_method.values()} == {len(made.person.prompts)}
    assert f"({made.likeness.floor:.3f})" in summary(made)


def test_a_base_that_knows_real_people_gets_a_real_one():
    person = demo_person("flux-dev")
    assert person.portrait.name == "astronaut.jpg"
    assert person.unseen == ()
