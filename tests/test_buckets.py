"""Laws of who is trained together: buckets, lanes, aspect ratios, classes. Numbers only."""

from collections import Counter
from dataclasses import replace

import pytest

from metalora.config import UserError
from metalora.config_meta_train import MetaTrainConfig, meta_train_config
from metalora.method.buckets import Draws, Person, deal, place

SQUARE, WIDE = (16, 16), (24, 10)
PAPER = meta_train_config("paper", {})


def people(count: int, photos: int = 20, kind: str = "woman") -> list[Person]:
    return [Person(f"{kind} {n}", kind, (SQUARE,) * photos) for n in range(count)]


def test_the_papers_numbers():
    assert (PAPER.steps, PAPER.bucket_steps, PAPER.warmup_steps) == (50_000, 2500, 1000)
    assert (PAPER.batch, PAPER.bucket_people) == (4, 50)
    buckets = deal(people(1050), PAPER)
    assert [len(bucket) for bucket in buckets] == [50] * 21
    assert len({person.name for bucket in buckets for person in bucket}) == 1050
    draws = Draws(buckets[0], 0, PAPER)
    uses = Counter((s.position, s.photo) for index in range(2500) for s in draws.batch(index))
    assert len(uses) == 1000
    assert set(uses.values()) <= {9, 10, 11}, "10 uses of each photo"


def test_steps_go_round_the_buckets():
    config = MetaTrainConfig(objective="paper", steps=30, bucket_steps=10, warmup_steps=4)
    places = [place(step, config) for step in range(30)]
    assert [p.visit for p in places] == [0] * 10 + [1] * 10 + [2] * 10
    assert [p.warm_up for p in places] == ([True] * 4 + [False] * 6) * 3


def test_a_batch_shows_different_people_one_a_lane_in_one_aspect_ratio():
    mixed = [Person(f"{n}", "cat", (SQUARE,) * 5 + (WIDE,) * (n % 4)) for n in range(13)]
    draws = Draws(mixed, 0, PAPER)
    for index in range(200):
        batch = draws.batch(index)
        assert [s.slot for s in batch] == [0, 1, 2, 3]
        assert len({mixed[s.position].sizes[s.photo] for s in batch}) == 1
        assert len({s.position for s in batch}) == 4 or mixed[batch[0].position].sizes[batch[0].photo] == WIDE
    seen = {(s.position, s.photo) for index in range(200) for s in draws.batch(index)}
    assert len(seen) == sum(len(person.sizes) for person in mixed)


def test_every_batch_is_full_and_another_visit_and_another_seed_draw_otherwise():
    draws = Draws(people(2), 0, replace(PAPER, batch=5))
    assert all(len(draws.batch(index)) == 5 for index in range(20))
    assert {s.position for s in draws.batch(0)} == {0, 1}

    def drawn(visit: int, seed: int):
        draws = Draws(people(8), visit, replace(PAPER, seed=seed))
        return [draws.batch(index) for index in range(5)]

    assert drawn(0, 0) == drawn(0, 0)
    assert drawn(0, 0) != drawn(1, 0)
    assert drawn(0, 0) != drawn(0, 1)


def test_buckets_are_even_and_mix_the_classes():
    buckets = deal(people(45) + people(45, kind="man"), PAPER)
    assert [len(bucket) for bucket in buckets] == [45, 45]
    assert all(20 <= sum(person.kind == "man" for person in bucket) <= 25 for bucket in buckets)


def test_bad_settings_are_named():
    with pytest.raises(UserError, match="warmup_steps 10 must be less than bucket_steps 10"):
        MetaTrainConfig(bucket_steps=10, warmup_steps=10)
    with pytest.raises(UserError, match="cannot be filled in"):
        MetaTrainConfig(caption="a photo of {nobody}")
    with pytest.raises(UserError, match="larger than meta_rank"):
        MetaTrainConfig(rank=17)
