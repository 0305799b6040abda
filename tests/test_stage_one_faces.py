"""Faces of stage 1's photos, and what their cells count: real photos, a real detector, the tiny FLUX's autoencoder."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from metalora.backbones.pipeline import PipelineBackbone
from metalora.config import Phase
from metalora.config_meta_train import MetaTrainConfig
from metalora.jobs import run
from metalora.jobs.meta_train.data import prepared
from metalora.jobs.meta_train.people import People
from metalora.jobs.photos import HEAD
from metalora.measure import load_faces
from metalora.method.adapter import random_meta_down
from metalora.method.buckets import deal
from metalora.method.crops import cells_within, grown
from metalora.method.flow import generator_of
from metalora.method.meta_train import MetaTraining, planned
from metalora.method.world import ALONE
from metalora.store.cache import Cache
from metalora.store.images import read_photo
from metalora.store.pictures import save_image

BENCHMARK = Path(__file__).parents[1] / "metalora" / "data" / "mini_benchmark"
CONFIG = MetaTrainConfig(
    objective="paper",
    flips=True,
    resolution=128,
    max_upscale=4.0,
    batch=3,
    bucket_people=2,
    validation_people=1,
    background_weight=0.25,
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Four people of two photos each, and one photo of nobody."""
    rows = [json.loads(line) for line in (BENCHMARK / "manifest.jsonl").read_text().splitlines()]
    chosen = [row for name in dict.fromkeys(row["identity"] for row in rows) for row in rows if row["identity"] == name]
    names = list(dict.fromkeys(row["identity"] for row in chosen))[:4]
    lines = []
    for name in names:
        for row in [row for row in chosen if row["identity"] == name][:2]:
            lines.append({"identity": name, "path": str(BENCHMARK / row["path"])})
    save_image(torch.full((3, 128, 128), 0.5), tmp_path / "nobody.png")
    lines.append({"identity": names[0], "path": str(tmp_path / "nobody.png")})
    path = tmp_path / "people.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def of(
    source: Path, tiny: PipelineBackbone, cache: Cache, config: MetaTrainConfig = CONFIG
) -> tuple[People, list[str]]:
    """The people, and what was said while they were prepared."""
    said: list[str] = []
    people = run(
        prepared(source, tiny, config, cache, ALONE),
        lambda progress: said.append(progress.text) if isinstance(progress, Phase) else None,
    )
    return people, said


def test_the_head_counts_one_and_what_surrounds_it_less(source: Path, tiny: PipelineBackbone, tmp_path: Path):
    people, said = of(source, tiny, Cache(tmp_path / "cache"))
    assert "finding faces on 9 photos" in said
    assert "1 photos show no face that was found: all of each counts as background" in said
    faces = load_faces()
    for name, one in people.identities.items():
        for photo, listed in enumerate(one.photos):
            weights = people.weights(name, photo, False)
            height, width = weights.shape[1:]
            image = read_photo(listed.path)
            if found := faces.find(image):  # the photos are square, so all of each is trained on
                assert image.shape[1] == image.shape[2]
                cells = torch.tensor(grown(found[0].box, HEAD)) * width / image.shape[2]
                expected = torch.where(cells_within(cells, height, width), 1.0, 0.25)
                assert 0.05 < (expected == 1).float().mean() < 0.9
            else:
                expected = torch.full((1, height, width), 0.25)
            assert torch.equal(weights, expected)
            assert torch.equal(people.weights(name, photo, True), expected.flip(2))
    again, said = of(source, tiny, people.cache)
    assert "finding faces on 9 photos" not in said, "found once"
    assert again.faces.keys() == people.faces.keys()


def test_where_all_cells_count_the_same_nobody_looks_for_faces(source: Path, tiny: PipelineBackbone, tmp_path: Path):
    people, said = of(source, tiny, Cache(tmp_path / "cache"), replace(CONFIG, background_weight=1))
    assert not any("face" in one for one in said)
    person = people.train[0]
    assert people.weights(person.name, 0, False) is None
    assert [one.weights for one in people.held_out_people()] == [None]


def test_every_batch_brings_the_weights_of_its_own_photos(source: Path, tiny: PipelineBackbone, tmp_path: Path):
    people, _ = of(source, tiny, Cache(tmp_path / "cache"))
    sites = tiny.sites("all")
    downs = random_meta_down(sites, 16, generator_of(0))
    training = MetaTraining(sites, downs, deal(people.train, CONFIG), CONFIG, tiny.device)
    steps = iter(planned(training, CONFIG))
    for _, batch in zip(range(6), people.batches(training, steps), strict=False):
        bucket = training.bucket(0)
        expected = [people.weights(bucket[one.position].name, one.photo, one.mirrored) for one in batch.samples]
        assert torch.equal(batch.weights, torch.stack(expected))
        assert batch.weights.shape == (len(batch.latents), 1, *batch.latents.shape[2:])
    (held_out,) = people.held_out_people()
    assert torch.equal(held_out.weights[1], held_out.weights[0].flip(2))
    assert [weights.shape[:2] for _, _, weights in held_out.unseen] == [(1, 1)] * len(held_out.unseen)
