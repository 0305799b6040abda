"""Reading results.json: what is foreign or broken is refused by file and field. The results are made up."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_up_results import made_up_run, read, write

from metalora.config import UserError
from metalora.store.report.results import read_results


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_up_run(tmp_path_factory.mktemp("made_up"), 5, 2, 1, (("none", None), ("lora", 375)))


def test_the_file_its_folder_and_a_file_of_the_first_format_open(folder: Path, tmp_path: Path):
    assert read_results(folder) == read_results(folder / "results.json")
    record = read(folder)
    record["format"] = "metalora-results-1"
    record["embedders"]["dino"] = None
    record["embedders"]["faces"] |= {"autoencoder_mean": 0.7, "autoencoder_photos": 9, "autoencoder_detected": 9}
    for one in record["variants"]:
        one["summary"] |= {"dino": None, "adherence": None, "autoencoder_position": None, "by_part": {}}
        for image in one["images"]:
            image |= {"others": 0.1, "dino": None, "adherence": 1.0}
    record["comparisons"].append({**record["comparisons"][0], "score": "adherence", "misses": None})
    write(tmp_path, record)
    old, new = read_results(tmp_path), read_results(folder)
    assert [one.images for one in old.variants] == [one.images for one in new.variants]
    assert old.comparisons == new.comparisons


def variant(record: dict[str, Any]) -> dict[str, Any]:
    return record["variants"][1]


BROKEN: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "another format": (
        lambda r: r.update(format="something-2"),
        "format: 'something-2' is not one of ['metalora-results-2'",
    ),
    "a text for a number": (
        lambda r: variant(r)["images"][1].update(faces="one"),
        "variants[1].images[1].faces: 'one' is not of type 'integer'",
    ),
    "true for a number": (lambda r: variant(r)["images"][0].update(faces=True), "variants[1].images[0].faces"),
    "a negative count": (
        lambda r: variant(r)["images"][0].update(faces=-1),
        "variants[1].images[0].faces: -1 is less than the minimum of 0",
    ),
    "a field that is not there": (
        lambda r: variant(r)["summary"].pop("clip_t"),
        "variants[1].summary: 'clip_t' is a required property",
    ),
    "a field of another format": (
        lambda r: r["backbone"].update(size=1),
        "backbone: Additional properties are not allowed ('size' was unexpected)",
    ),
    "a hash that is none": (
        lambda r: r["benchmark"].update(manifest_sha256="abc"),
        "benchmark.manifest_sha256: 'abc' does not match",
    ),
    "an unknown score": (
        lambda r: r["comparisons"][0].update(score="beauty"),
        "comparisons[0].score: 'beauty' is not one of",
    ),
    "an unknown person": (lambda r: variant(r)["images"][0].update(identity="nobody"), "'nobody' is not among"),
    "an unknown prompt": (lambda r: variant(r)["images"][0].update(prompt="none"), "'none' is not among"),
    "an unknown variant": (lambda r: r["comparisons"][0].update(one="x"), "comparisons[0].one 'x' is not the id"),
    "a variant twice": (lambda r: variant(r).update(id="none"), "variants has 'none' 2 times"),
    "no variant": (lambda r: r.update(variants=[], comparisons=[]), "variants is empty"),
    "a file from elsewhere": (lambda r: variant(r)["images"][0].update(path="../../etc/hosts"), "does not stay inside"),
    "an absolute path": (
        lambda r: r["benchmark"]["identities"][0].update(reference="/etc/hosts"),
        "benchmark.identities[0].reference '/etc/hosts' does not stay inside",
    ),
    "no finite number": (lambda r: variant(r)["images"][0].update(clip_t=1e999), "1e999 is no finite number"),
    "a drive": (lambda r: variant(r)["images"][0].update(path="C:\\photo.png"), "does not stay inside"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_named_by_file_and_field(name: str, folder: Path, tmp_path: Path):
    change, message = BROKEN[name]
    record = read(folder)
    change(record)
    (tmp_path / "results.json").write_text(json.dumps(record).replace("Infinity", "1e999"), encoding="utf-8")
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        read_results(tmp_path)
    assert str(tmp_path / "results.json") in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "3", '{"format": NaN}', "[" * 100_000, "\ufeff{}", "\udcff\udcfe"]
)
def test_what_is_not_our_json_is_refused_in_a_sentence(text: str, tmp_path: Path):
    (tmp_path / "results.json").write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(UserError, match=r"results\.json"):
        read_results(tmp_path)


def test_many_problems_are_counted_and_a_long_value_is_not_repeated(folder: Path, tmp_path: Path):
    record = read(folder)
    for image in variant(record)["images"]:
        image |= {"faces": None, "seed": None, "path": 3}
    write(tmp_path, record)
    with pytest.raises(UserError, match="and 10 more"):
        read_results(tmp_path)
    variant(record)["images"] = {str(number): "image" for number in range(10_000)}
    write(tmp_path, record)
    with pytest.raises(UserError, match=r"variants\[1\]\.images: .* is not of type 'array'") as caught:
        read_results(tmp_path)
    assert len(str(caught.value)) < 1000
