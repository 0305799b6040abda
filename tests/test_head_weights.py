"""The head counts more than what is around it: where it lies on a crop, and what that does to the loss."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from photos import empty_wall, portrait
from torch.nn.functional import avg_pool2d
from toy import ToyDenoiser

from metalora.backbones.protocol import Backbone
from metalora.config import CropConfig, PersonalizeConfig, UserError
from metalora.jobs.personalize import plan_photos
from metalora.jobs.photos import HEAD, PlannedPhoto, head_weights, plan_pixels
from metalora.measure import load_faces
from metalora.method.crops import grown
from metalora.method.flow import Times, flow_losses, generator_of, noised, velocity
from metalora.store.pictures import save_image

CELL = 8  # pixels across a cell of the latents
CROPS = CropConfig(resolution=256)


@pytest.fixture(scope="module")
def planned() -> PlannedPhoto:
    return plan_pixels(portrait(), "the portrait", CROPS, load_faces(), 16)


def test_the_head_is_where_the_crop_shows_it(planned: PlannedPhoto):
    left, top, right, bottom = (round(edge) for edge in grown(planned.face.box, HEAD))
    painted = torch.zeros_like(planned.photo)
    painted[:, max(0, top) : bottom, max(0, left) : right] = 1
    painted = replace(planned, photo=painted)
    for crop in planned.crops:
        shown = avg_pool2d(painted.image(crop)[:1], CELL)[0]
        head = planned.head(crop, *shown.shape)
        certain = (shown < 0.05) | (shown > 0.95)  # a cell on the border may go either way
        assert certain.float().mean() > 0.6
        assert torch.equal(head[certain], shown[certain] > 0.5)
        assert head.any()


def test_weights_follow_the_views_and_there_are_none_where_all_count_the_same(planned: PlannedPhoto):
    latents = [torch.zeros(2, 16, crop.size[1] // CELL, crop.size[0] // CELL) for crop in planned.crops]
    weights = head_weights([planned], latents, 0.25)
    assert [tuple(weight.shape) for weight in weights] == [(2, 1, *views.shape[2:]) for views in latents]
    assert all(torch.equal(weight[0], weight[1].flip(-1)) for weight in weights)
    assert any(not torch.equal(weight[0], weight[1]) for weight in weights)
    assert {value for weight in weights for value in weight.unique().tolist()} == {0.25, 1.0}
    assert head_weights([planned], latents, 1.0) == []


def test_the_whole_photo_needs_a_face_only_where_its_background_counts_less(tiny: Backbone, tmp_path: Path):
    save_image(empty_wall(), tmp_path / "wall.png")
    config, crops = PersonalizeConfig(method="lora"), replace(CROPS, learn_from="whole")
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
