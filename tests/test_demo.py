"""The demo: its page needs no other file, shows what the run made, and claims what the run's own numbers say."""

import base64
import io
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from metalora.backbones.bases import PRESETS
from metalora.backbones.pipeline import open_backbone
from metalora.commands import demo as command
from metalora.config import NONE, BaseConfig, UserError
from metalora.jobs import run
from metalora.jobs.demo import demonstrate
from metalora.jobs.demo.page import META_LORA, Demonstration, labels_of, rows_of, summary, write_page
from metalora.jobs.demo.people import demo_people
from metalora.store.cache import Cache
from metalora.store.images import photo_digest, read_photo

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Demonstration:
    """The tiny backbone on two of the miniature's rendered people: the path with a likeness to measure."""
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "tiny", PRESETS["tiny"] | {"steps": 3, "sampling_steps": 1})
        backbone = open_backbone(BaseConfig(backbone="tiny", device="cpu"))
        people = demo_people("miniature", 2)
        return run(demonstrate(backbone, folder, Cache(folder / "cache"), "tiny", people))


def test_the_page_needs_no_other_file_and_begins_with_everyones_photo_and_ends_with_the_losses(made):
    page = made.page.read_text()
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert sources
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert not re.search("https?:", page)
    assert len(page) < 5e6
    firsts = [page.index(f"“{person.prompts[0]}”") for person in made.people]
    assert firsts == sorted(firsts)
    assert page.index('class="lead"') < firsts[0]
    assert firsts[-1] < page.index("Other prompts") < page.index("How it was learned") < page.index("training loss")


def test_every_image_on_the_page_is_one_that_the_run_wrote_or_learned_from(made):
    shown = [
        Image.open(io.BytesIO(base64.b64decode(data)))
        for data in re.findall(r'src="data:image/jpeg;base64,([^"]*)"', made.page.read_text())
    ]
    written = [image.path for people in made.images.values() for images in people for image in images]
    written += [row.photo for row in rows_of(made)] + [made.crops, made.curve]
    assert len(shown) == len(written)
    small = [np.asarray(Image.open(path).convert("RGB").resize((16, 16)), dtype=float) for path in written]
    for picture in shown:
        seen = np.asarray(picture.resize((16, 16)), dtype=float)
        assert min(np.abs(seen - one).mean() for one in small) < 3


def test_a_random_meta_down_is_called_one_and_a_trained_one_is_not(made):
    assert "random" in made.labels["meta-lora"]
    assert "not meta-trained" in summary(made)
    labels = labels_of(made.images, trained=True)
    assert labels["meta-lora"] == META_LORA
    assert "not meta-trained" not in summary(replace(made, labels=labels))


def test_everyone_has_a_lora_of_their_own_and_each_prompt_images_of_the_same_noise_with_and_without_it(made):
    assert list(made.images) == list(made.labels) == [NONE, "lora", "meta-lora"]
    for people in made.images.values():
        for person, images in zip(made.people, people, strict=True):
            assert [image.prompt for image in images] == list(person.prompts)
            assert {image.seed for image in images} == {person.seed}
            assert all(image.path.exists() for image in images)
    for trained in made.trained.values():
        assert [path.stem for path in trained.loras] == [person.name for person in made.people]
        assert len({path.read_bytes() for path in trained.loras}) == len(made.people)


def test_likeness_is_measured_on_photos_that_nothing_was_learned_from(made):
    assert made.scores is not None
    assert made.scores.floor < made.scores.ceiling
    for person in made.people:
        assert len(person.unseen) >= 3
        digests = {photo_digest(read_photo(path)) for path in (*person.unseen, *person.strangers)}
        assert photo_digest(read_photo(person.portrait)) not in digests
    assert {one.images for one in made.scores.by_method.values()} == {sum(len(p.prompts) for p in made.people)}
    assert f"({made.scores.floor:.3f}, 0%)" in summary(made)


def with_scores(made: Demonstration, people: int, meta: float, plain: float) -> Demonstration:
    """The same, as if so many people had been measured, each a little differently."""
    found = dict(made.scores.by_method)
    for method, value in (("meta-lora", meta), ("lora", plain), (NONE, 0.1)):
        likeness = {str(k): value + 0.01 * (k % 3) * (method == "lora") for k in range(people)}
        found[method] = replace(found[method], likeness=likeness, clip_t={name: 40 + value for name in likeness})
    return replace(made, scores=replace(made.scores, by_method=found))


def test_two_methods_are_compared_with_an_interval_that_says_whether_it_may_be_chance(made):
    assert "may be chance" in summary(with_scores(made, 5, 0.41, 0.4))
    ahead = summary(with_scores(made, 5, 0.5, 0.4))
    assert "likeness +0.092 (+0.0" in ahead
    assert "more than chance" in ahead
    few = summary(with_scores(made, 2, 0.5, 0.4))
    assert "likeness +0.095, which of so few people may be chance" in few


def test_the_first_sentence_is_what_it_took_and_what_it_gave(made):
    first = summary(with_scores(made, 2, 0.5, 0.4))
    assert f"\nIn {made.trained['meta-lora'].config.steps} steps and " in first
    assert "takes likeness from 0.10 to 0.50" in first
    gone_on = {method: replace(one, seconds=None) for method, one in made.trained.items()}
    assert "a person on this machine" not in summary(replace(made, trained=gone_on))


def test_what_was_not_measured_is_left_out_and_said(made):
    def without(score: str) -> Demonstration:
        found = {method: replace(one, **{score: {}}) for method, one in made.scores.by_method.items()}
        return replace(made, scores=replace(made.scores, by_method=found))

    assert "images show no face" in summary(without("likeness"))
    assert "CLIP-T not measured" in summary(without("clip_t"))
    assert "open_clip" in summary(without("clip_t"))


def test_one_person_without_other_photos_has_a_page_that_claims_no_likeness(made, tmp_path):
    one = replace(made, people=made.people[:1], scores=None, page=tmp_path / "index.html")
    write_page(one)
    page = one.page.read_text()
    assert "cannot be measured honestly" in page
    assert "R-FaceSim" not in page


def test_a_base_that_knows_real_people_gets_a_real_one_and_the_miniature_people_with_prompts_of_their_own():
    (person,) = demo_people("flux-dev")
    assert person.portrait.name == "astronaut.jpg"
    assert person.unseen == ()
    with pytest.raises(UserError, match="miniature"):
        demo_people("flux-dev", 2)
    people = demo_people("miniature")
    assert len(people) == 3
    assert {person.class_name for person in people} == {"woman", "man"}
    assert len({person.prompts for person in people}) == 3
    for number in (0, 17):
        with pytest.raises(UserError, match="1 to 16"):
            demo_people("miniature", number)


@pytest.mark.parametrize(
    ("display", "terminal", "ci", "opens"),
    [("", True, "", False), (":0", False, "", False), (":0", True, "true", False), (":0", True, "", True)],
)
def test_the_page_opens_only_where_somebody_sits_at_a_screen(monkeypatch, display, terminal, ci, opens):
    monkeypatch.setattr(command.sys, "platform", "linux")
    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.setenv("CI", ci)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(command.sys.stdout, "isatty", lambda: terminal, raising=False)
    assert command.is_watched() == opens
