"""A benchmark's images: made together they are those made alone; scored whole; and the figures made of scores."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from benchmarks import planned
from torch import Tensor

from metalora.backbones.pipeline import PipelineBackbone, Speed
from metalora.backbones.tiny_flux import TinyFlux
from metalora.jobs import run
from metalora.jobs.benchmark import images
from metalora.jobs.benchmark.plan import Layout, PlannedPrompt, filled_texts
from metalora.jobs.benchmark.results import (
    comparisons,
    figure,
    genuine_and_impostor,
    grouped_means,
    identity_values,
    shown,
)
from metalora.jobs.benchmark.scores import PictureScorer, RealFaces
from metalora.jobs.benchmark.train import Bench
from metalora.jobs.evaluate.whole import truncation
from metalora.jobs.training_files import save_lora
from metalora.measure.clip import load_clip
from metalora.method.adapter import Adapters, fold_all, new_adapters
from metalora.store.cache import Cache
from metalora.store.images import read_photo

pytestmark = pytest.mark.slow


class Colours:
    """A CLIP whose space is red, green and blue: it reads colours and nothing else."""

    name, digest = "colours", "0" * 64
    words = ("red", "green", "blue")

    def images(self, pictures: list[Tensor]) -> Tensor:
        return torch.stack([picture.float().mean(dim=(1, 2)) for picture in pictures])

    def texts(self, texts: list[str]) -> Tensor:
        return torch.tensor([[float(word in text) for word in self.words] for text in texts])


def prompt(text: str, **asks: str) -> PlannedPrompt:
    return PlannedPrompt("p", "several-photos", None, None, text, [], asks, {"woman": text}, {"0": 0})


def painted(folder: Path, name: str, red: int, green: int, blue: int) -> Path:
    from PIL import Image

    path = folder / f"{name}.png"
    Image.new("RGB", (8, 8), (red, green, blue)).save(path)
    return path


def test_clip_scores_are_cosines_times_100_and_null_without_clip(tmp_path: Path):
    paths = [painted(tmp_path, "one", 255, 0, 0), painted(tmp_path, "two", 0, 255, 0)]
    scorer = PictureScorer(Colours(), {})
    scores = scorer.score(paths, [prompt("a red coat"), prompt("a red coat")], "woman", paths[1])
    assert [score["clip_t"] for score in scores] == pytest.approx([100, 0])
    assert [score["clip_i"] for score in scores] == pytest.approx([0, 100])
    assert [score["shown"] for score in scores] == [{}, {}]
    nothing = {"clip_t": None, "clip_i": None, "shown": None}
    assert PictureScorer(None, {}).score(paths[:1], [prompt("a")], "woman", paths[1]) == [nothing]


def test_what_an_image_shows_is_chosen_among_the_alternatives_alone(tmp_path: Path):
    paths = [painted(tmp_path, "red", 200, 10, 0), painted(tmp_path, "green", 0, 200, 0)]
    alternatives = {"sky": {value: f"{value} sky" for value in ("blue", "green", "red")}, "hat": {"a": "b", "c": "d"}}
    asked = prompt("a red sky", sky="red")
    scores = PictureScorer(Colours(), alternatives).score(paths, [asked, asked], "woman", paths[0])
    assert [score["shown"] for score in scores] == [{"sky": 1}, {"sky": 0}]
    images = [
        {"identity": i, "prompt": p, "shown": {"sky": s}} for i, p, s in [("a", "x", 1), ("a", "x", 0), ("b", "x", 1)]
    ]
    assert shown(images) == {"sky": {"mean": 0.75, "low": None, "high": None, "count": 2}}
    assert shown([{"identity": "a", "prompt": "x", "shown": None}]) == {}


def test_prompts_of_which_clip_reads_only_the_beginning_are_named():
    clip = load_clip()
    long = "a photo of a woman, " + "green room background, " * 60
    assert truncation(clip, ["a photo of a woman", long]) == (
        f"clip-miniature reads only the beginning of 1 of 2 prompts: {long!r}"
    )
    assert truncation(clip, ["a photo of a woman"]) is None


IMAGES = [
    {"identity": i, "prompt": p, "faces": f, "held_out": h, "reference": r, "clip_t": c}
    | {"clip_i": None, "nearest": n, "best": h}
    for i, p, f, h, r, c, n in [
        ("ada", "beach", 1, 0.6, 0.8, 30.0, "ada"),
        ("ada", "beach", 0, None, None, 20.0, None),
        ("ada", "wood", 2, 0.4, 0.4, 20.0, "ada"),
        ("bob", "beach", 1, 0.2, 0.6, 10.0, "eve"),
        ("eve", "beach", 1, None, 0.9, 40.0, None),  # a person of one photo
    ]
]


def test_grouped_means_by_hand_and_an_image_without_a_face_is_not_identified():
    class_of = {"ada": "woman", "bob": "man", "eve": "woman"}
    means = grouped_means(IMAGES, lambda image: class_of[image["identity"]], {"ada", "bob"})
    assert means["woman"]["r_facesim"] == pytest.approx(0.5)
    assert means["woman"]["copying"] == pytest.approx(0.1)
    assert means["woman"]["clip_t"] == pytest.approx((22.5 + 40) / 2)
    assert means["man"]["r_facesim"] == pytest.approx(0.2)
    assert means["man"]["clip_i"] is None
    values = identity_values(IMAGES, "identified", None, {"ada", "bob"})
    assert values == {"ada": pytest.approx((0.5 + 1) / 2), "bob": 0.0}


def test_paired_over_the_people_whom_both_have():
    other = [{**image, "held_out": 0.1} for image in IMAGES if image["identity"] == "ada" and image["faces"]]
    found = comparisons([{"id": "a", "images": IMAGES}, {"id": "b", "images": other}], {"ada", "bob"})
    (one,) = (c for c in found if (c["score"], c["misses"]) == ("r_facesim", "left out"))
    assert one == {"one": "a", "other": "b", "score": "r_facesim", "misses": "left out"} | {
        "mean": pytest.approx(0.4),
        "low": None,
        "high": None,
        "count": 1,
    }


def test_an_interval_needs_five_people():
    assert figure({}) is None
    four = {"a": 1.0, "b": 3.0, "c": 2.5, "d": 1.5}
    assert figure(four) == {"mean": 2.0, "low": None, "high": None, "count": 4}
    five = figure({**four, "e": 2.0})
    assert five["low"] < 2.0 < five["high"]
    assert five["high"] - five["low"] < 5, "the values differ by 2"


def test_ceiling_and_floor_weigh_people_and_not_photos():
    def at(*degrees: float) -> Tensor:
        radians = torch.deg2rad(torch.tensor(degrees))
        return torch.stack([radians.cos(), radians.sin()], dim=1)

    real = {
        "ada": RealFaces(at(0)[0], at(60, 60, 60)),  # pairs: 3 of cos 60, 3 of cos 0
        "bob": RealFaces(at(90)[0], at(90)),
        "eve": RealFaces(at(0)[0], torch.empty(0, 2)),
    }
    ceiling, floor = genuine_and_impostor(real)
    assert ceiling == pytest.approx((0.75 + 1) / 2)
    ada_bob, ada_eve, bob_eve = 3 / 4 * torch.tensor(30.0).deg2rad().cos().item(), (1 + 3 * 0.5) / 4, 0.0
    assert floor == pytest.approx((ada_bob + ada_eve + bob_eve) / 3, abs=1e-6)


def test_a_merged_batch_gives_the_images_of_a_lora_that_acts_on_them_one_by_one(
    tiny: PipelineBackbone, warm_cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    plan = planned(tmp_path, tiny, methods=("lora",), people=1, step_counts=(5,), images_at_once=4)
    with tiny.text_encoders() as encode:
        prompts = {text: encode(text) for text in filled_texts(plan.prompts)}
    batch = Bench(plan, Layout(tmp_path / "batch"), {}, tiny, prompts, warm_cache)
    single = replace(batch, plan=replace(plan, images_at_once=1), layout=Layout(tmp_path / "single"))
    without = replace(batch, layout=Layout(tmp_path / "without"))
    merged = images_of(batch, size=0.3)
    monkeypatch.setattr(
        images, "wearing_lora", lambda adapters, denoiser, _backbone: adapters.attached(denoiser.network)
    )
    for one, other, base in zip(merged, images_of(single, size=0.3), images_of(without, size=0.0), strict=True):
        assert (one - other).abs().max() < 1.5 / 255, "a step of 8 bits, where rounding tips it over"
        assert (one - base).abs().max() > 5 / 255
    assert len(merged) == 4


def test_weights_that_are_rounded_or_away_are_not_merged_into(tiny: PipelineBackbone, monkeypatch: pytest.MonkeyPatch):
    adapters = new_adapters(tiny.sites("all"), 1, torch.Generator().manual_seed(0))
    monkeypatch.setattr(Adapters, "attached", lambda _self, _network: "attached")
    for speed, acts in ((Speed(), False), (Speed(eight_bit=True), True), (Speed(swapped_blocks=3), True)):
        backbone = PipelineBackbone(TinyFlux(), tiny.device, tiny.dtype, speed)
        worn = images.wearing_lora(adapters, SimpleNamespace(network=None), backbone)
        assert (worn == "attached") == acts, speed


def images_of(bench: Bench, size: float) -> list[torch.Tensor]:
    """All of the first person's, with a LoRA of that size."""
    backbone, person, (variant,) = bench.backbone, bench.plan.people[0], bench.plan.variants()
    generator = torch.Generator().manual_seed(0)
    adapters = new_adapters(backbone.sites("all"), 1, generator)
    for up in adapters.parameters(("up",)):
        up.data.normal_(0, size, generator=generator)
    save_lora(bench.layout.lora(variant, person), fold_all(adapters), "diffusers", backbone.architecture, {})
    with backbone.denoiser() as denoiser, backbone.autoencoder() as autoencoder:
        run(images.make_images(variant, person, bench, denoiser, autoencoder))
    return [read_photo(path) for path in sorted(bench.layout.run.rglob("*.png"))]
