"""Where the head lies and how it counts; and training on crops that are pixels, with masks of it, as nodes do."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from photos import empty_wall, portrait
from runs import CONFIG, CROPS
from torch.nn.functional import avg_pool2d
from toy import ToyDenoiser

from metalora.backbones.pipeline import PipelineBackbone
from metalora.backbones.protocol import Backbone
from metalora.config import CropConfig, PersonalizeConfig, Step, UserError
from metalora.jobs import run
from metalora.jobs.lora import read_adapter
from metalora.jobs.personalize import plan_photos
from metalora.jobs.personalize_pictures import TrainedAdapter, as_it_is, as_started, personalize_pictures
from metalora.jobs.photos import HEAD, PlannedPhoto, head_weights, plan_photo, plan_pixels
from metalora.measure import load_faces
from metalora.method.crops import grown
from metalora.method.flow import Times, flow_losses, generator_of, noised, velocity
from metalora.store import files
from metalora.store.cache import Cache
from metalora.store.pictures import save_image

HEAD_FIRST = replace(CONFIG, method="lora", steps=6, background_weight=0.1, time_shift=0.5, ema_steps=3, save_every=100)


@pytest.fixture
def planned(portrait: Path) -> PlannedPhoto:
    return plan_photo(portrait, CROPS, load_faces(), multiple=16)


def pixels_and_masks(planned: PlannedPhoto) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    return [planned.image(crop) for crop in planned.crops], [planned.mask(crop, 8) for crop in planned.crops]


def trained(
    tiny: PipelineBackbone,
    crops: list[torch.Tensor],
    folder: Path,
    cache: Cache,
    heads: list[torch.Tensor],
    config: PersonalizeConfig = HEAD_FIRST,
    **more: object,
) -> TrainedAdapter:
    out, given = folder / "ada.adapter.safetensors", {"flips": True, "meta_down": None, "cache": cache, **more}
    return run(personalize_pictures(tiny, crops, out, folder / "states", config, heads=heads, **given))


def test_masks_of_the_head_give_the_lora_of_the_photo(
    personalize, tiny: PipelineBackbone, planned: PlannedPhoto, tmp_path: Path, warm_cache: Cache
):
    crops, heads = pixels_and_masks(planned)
    found = trained(tiny, crops, tmp_path, warm_cache, heads).adapters.tensors()
    wanted, _ = files.read(personalize(tmp_path / "ada.safetensors", HEAD_FIRST).adapter, ("adapter",))
    assert found.keys() == wanted.keys()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in found.items())
    everything = [torch.ones_like(head) for head in heads]
    other = trained(tiny, crops, tmp_path, warm_cache, everything).adapters.tensors()
    assert not all(torch.equal(tensor, wanted[name]) for name, tensor in other.items())
    plain = trained(tiny, crops, tmp_path, warm_cache, [], replace(HEAD_FIRST, background_weight=1.0))
    assert all(torch.allclose(tensor, other[name]) for name, tensor in plain.adapters.tensors().items())


def test_the_same_training_under_another_name_is_only_written_again(
    tiny: PipelineBackbone, planned: PlannedPhoto, tmp_path: Path, warm_cache: Cache
):
    crops, latest = [planned.image(planned.crops[0])], dict[str, TrainedAdapter]()
    config = replace(HEAD_FIRST, background_weight=1.0, steps=2)

    def steps_of(name: str, config: PersonalizeConfig) -> tuple[int, TrainedAdapter]:
        steps: list[Step] = []
        out, how = tmp_path / f"{name}.adapter.safetensors", {"flips": True, "meta_down": None, "cache": warm_cache}
        job = personalize_pictures(tiny, crops, out, tmp_path / "states", config, **how, latest=latest)
        made = run(
            job, lambda progress: steps.append(progress) if isinstance(progress, Step) and progress.loss else None
        )
        assert made.file == out
        return len(steps), made

    first, again = steps_of("ada", config), steps_of("eve", config)
    assert (first[0], again[0]) == (2, 0)
    assert again[1].file.read_bytes() == first[1].file.read_bytes()
    assert steps_of("ada", replace(config, seed=1))[0] == 2
    assert len(latest) == 1, "only the latest is kept"


def test_a_painted_mask_counts_by_its_share_of_a_cell_and_none_as_all():
    mask = torch.zeros(40, 36)  # 8 and 4 pixels more than whole tokens
    mask[:8, :4] = 1
    photo = as_it_is(torch.rand(3, 40, 36, generator=torch.Generator().manual_seed(0)), 16, mask)
    photo_of_whole_tokens = as_it_is(torch.rand(3, 32, 32), 16, mask[:32, :32])
    head = photo_of_whole_tokens.head(photo_of_whole_tokens.crops[0], 4, 4)
    assert head[0].tolist() == [0.5, 0, 0, 0]
    assert not head[1:].any()
    head = photo.head(photo.crops[0], 4, 4)  # cut to the middle 36 x 36 and scaled down, as its crop is
    assert head[0, 0] == pytest.approx(6 / 9 * 4 / 9, abs=0.03)
    assert head[:, 2:].max() < 0.05
    photo = as_it_is(torch.rand(3, 32, 48), 16)
    assert torch.equal(photo.mask(photo.crops[0], 8), torch.ones(32, 48))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda heads: [], "background_weight is 0.1, but nothing says where the heads are"),
        (lambda heads: heads[1:], r"heads has \d+ masks and crops \d+ images"),
        (lambda heads: [heads[0][1:], *heads[1:]], r"mask 1 is \d+ x \d+ pixels, its crop \d+ x \d+"),
    ],
)
def test_masks_that_are_not_the_crops_are_refused(
    tiny: PipelineBackbone, planned: PlannedPhoto, tmp_path: Path, warm_cache: Cache, change, said: str
):
    crops, heads = pixels_and_masks(planned)
    with pytest.raises(UserError, match=said):
        trained(tiny, crops, tmp_path, warm_cache, change(heads))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("meta_down", [None, "random"])
def test_a_training_goes_on_from_an_adapter_file_with_its_rank_and_other_noise(
    tiny: PipelineBackbone, planned: PlannedPhoto, tmp_path: Path, warm_cache: Cache, meta_down: str | None
):
    crops = [planned.image(crop) for crop in planned.crops]
    method = "meta-lora" if meta_down else "lora"
    config = replace(CONFIG, method=method, rank=2, steps=3, sites="attention", save_every=100)
    first = trained(tiny, crops, tmp_path / "first", warm_cache, [], config, meta_down=meta_down)
    loaded = TrainedAdapter(*read_adapter(first.file), first.file)
    assert as_started(PersonalizeConfig(), loaded).rank == 2
    again = as_started(replace(config, method="lora", rank=1, sites="all", learning_rate=0.0), loaded)
    unmoved = trained(tiny, crops, tmp_path / "unmoved", warm_cache, [], again, start=loaded)
    before = first.adapters.tensors()
    assert all(torch.equal(tensor, before[name]) for name, tensor in unmoved.adapters.tensors().items())
    assert unmoved.metadata["continues"] == files.digest_of_tensors(before)
    assert unmoved.metadata.get("meta_down") == first.metadata.get("meta_down")
    assert unmoved.training.losses[0] != first.training.losses[0], "the same noise again"
    moved = trained(tiny, crops, tmp_path / "moved", warm_cache, [], replace(again, learning_rate=3e-3), start=loaded)
    after = moved.adapters.tensors()
    assert not any(torch.equal(after[name], before[name]) for name in before if name.endswith(".up"))
    frozen = [torch.equal(after[name], before[name]) for name in before if name.endswith(".down")]
    assert all(frozen) if meta_down else not any(frozen)
    foreign = replace(loaded, metadata={**loaded.metadata, "base": "other"})
    with pytest.raises(UserError, match=r"made for 'other', but the loaded model is 'flux-"):
        trained(tiny, crops, tmp_path / "foreign", warm_cache, [], again, start=foreign)


def test_each_crop_is_trained_with_its_own_caption(
    tiny: PipelineBackbone, planned: PlannedPhoto, tmp_path: Path, warm_cache: Cache
):
    crops, config = [planned.image(crop) for crop in planned.crops[:3]], replace(CONFIG, method="lora", steps=3)
    config = replace(config, learning_rate=0.0)  # so that a loss is that of a crop, its noise and its caption
    plain = trained(tiny, crops, tmp_path / "plain", warm_cache, [], config)
    assert "captions" not in plain.metadata
    same = trained(tiny, crops, tmp_path / "same", warm_cache, [], config, captions=["a photo of a woman"])
    assert same.training.losses == plain.training.losses
    captions = ["a {class} on a beach", "", "a red car"]  # "": the one of all crops
    own = trained(tiny, crops, tmp_path / "own", warm_cache, [], config, captions=captions)
    assert json.loads(own.metadata["captions"]) == ["a woman on a beach", "", "a red car"]
    assert sum(a != b for a, b in zip(own.training.losses, plain.training.losses, strict=True)) == 2
    with pytest.raises(UserError, match=r"captions has 2 texts and crops 3 images"):
        trained(tiny, crops, tmp_path / "wrong", warm_cache, [], config, captions=["a", "b"])


CELL = 8  # pixels across a cell of the latents
LARGE = CropConfig(resolution=256)


@pytest.fixture(scope="module")
def portrait_plan() -> PlannedPhoto:
    return plan_pixels(portrait(), "the portrait", LARGE, load_faces(), 16)


def test_the_head_is_where_the_crop_shows_it(portrait_plan: PlannedPhoto):
    left, top, right, bottom = (round(edge) for edge in grown(portrait_plan.face.box, HEAD))
    painted = torch.zeros_like(portrait_plan.photo)
    painted[:, max(0, top) : bottom, max(0, left) : right] = 1
    painted = replace(portrait_plan, photo=painted)
    for crop in portrait_plan.crops:
        shown = avg_pool2d(painted.image(crop)[:1], CELL)[0]
        head = portrait_plan.head(crop, *shown.shape)
        certain = (shown < 0.05) | (shown > 0.95)  # a cell on the border may go either way
        assert certain.float().mean() > 0.6
        assert torch.equal(head[certain], shown[certain] > 0.5)
        assert head.any()


def test_weights_follow_the_views_and_there_are_none_where_all_count_the_same(portrait_plan: PlannedPhoto):
    latents = [torch.zeros(2, 16, crop.size[1] // CELL, crop.size[0] // CELL) for crop in portrait_plan.crops]
    weights = head_weights([portrait_plan], latents, 0.25)
    assert [tuple(weight.shape) for weight in weights] == [(2, 1, *views.shape[2:]) for views in latents]
    assert all(torch.equal(weight[0], weight[1].flip(-1)) for weight in weights)
    assert any(not torch.equal(weight[0], weight[1]) for weight in weights)
    assert {value for weight in weights for value in weight.unique().tolist()} == {0.25, 1.0}
    assert head_weights([portrait_plan], latents, 1.0) == []


def test_the_whole_photo_needs_a_face_only_where_its_background_counts_less(tiny: Backbone, tmp_path: Path):
    save_image(empty_wall(), tmp_path / "wall.png")
    config, crops = PersonalizeConfig(method="lora"), replace(LARGE, learn_from="whole")
    (whole,) = plan_photos([tmp_path / "wall.png"], config, crops, tiny, "sface")
    assert whole.face is None
    with pytest.raises(UserError, match=r"wall\.png"):
        plan_photos([tmp_path / "wall.png"], replace(config, background_weight=0.5), crops, tiny, "sface")


def test_the_loss_counts_each_cell_by_its_weight(denoiser: ToyDenoiser):
    clean, prompt = torch.randn(3, 2, 2, 4, generator=generator_of("clean")), torch.ones(1, 8)
    weights = torch.rand(3, 1, 2, 4, generator=generator_of("weights"))
    drawn = generator_of("draw")
    t, noise = Times().draw(3, drawn), torch.randn(clean.shape, generator=drawn)
    error = (denoiser(noised(clean, noise, t), t, prompt) - velocity(clean, noise)).square()

    def loss(weights: torch.Tensor | None) -> torch.Tensor:
        return flow_losses(denoiser, [clean], prompt, [generator_of("draw")], Times(), [weights])[0]

    torch.testing.assert_close(loss(weights), (weights * error).mean())
    assert torch.equal(loss(torch.ones_like(weights)), loss(None))
