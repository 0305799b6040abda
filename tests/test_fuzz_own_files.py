"""Our own files, damaged: a run goes on from what it saved to the last bit, or a sentence says why not."""

import random
from collections import Counter
from pathlib import Path

import pytest
import torch
from fuzzing import Fuzz, damaged

from metalora.config import UserError
from metalora.jobs.info import describe
from metalora.jobs.meta_train import Checkpoints
from metalora.store import files
from metalora.store.cache import Cache, entries

TENSORS = {"a.down": torch.randn(4, 8), "optimizer.0.step": torch.tensor(3.0), "losses": torch.rand(5).double()}
METADATA = {"base": "flux.1-dev", "options": '{"steps": 3}', "step": "5"}


@pytest.fixture(autouse=True)
def without_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files.os, "fsync", lambda _: None)  # thousands of files are written


def test_a_damaged_state_or_checkpoint_is_refused_or_is_what_was_written(tmp_path: Path):
    draw, found, fuzz = random.Random(5), Counter(), Fuzz("checkpoints")
    for index in fuzz:
        kind, path = files.RESUMED[index % 2], tmp_path / "step-00000005.safetensors"
        files.write(path, TENSORS, kind, METADATA)
        path.write_bytes(damaged(path.read_bytes(), draw))
        try:
            tensors, metadata = files.read(path, (kind,))
        except UserError:
            found["refused"] += 1
        else:
            found["whole"] += 1
            assert files.digest_of_tensors(tensors) == files.digest_of_tensors(TENSORS)
            assert {**metadata, "kind": kind} == {**METADATA, "kind": kind}
        for read in (describe, Checkpoints(tmp_path, METADATA, 3).load):
            fuzz.attempt(read, path)
    assert found["refused"] > found["whole"]


def test_a_damaged_cache_entry_is_a_miss_or_is_what_was_put(tmp_path: Path):
    draw, cache, fuzz = random.Random(6), Cache(tmp_path), Fuzz("cache entries")
    key, missed = Cache.key(what="x"), 0
    for _ in fuzz:
        cache.put(key, TENSORS)
        (entry,) = entries(tmp_path)
        entry.path.write_bytes(damaged(entry.path.read_bytes(), draw))
        if key in cache:
            assert files.digest_of_tensors(cache.get(key)) == files.digest_of_tensors(TENSORS)
            assert cache.shapes(key)["a.down"] == (4, 8)
            assert torch.equal(cache.get_row(key, "a.down", 1), TENSORS["a.down"][1])
        else:
            missed += 1
            fuzz.attempt(lambda _: cache.get_row(key, "a.down", 1), entry.path)
    assert missed > fuzz.count / 2
