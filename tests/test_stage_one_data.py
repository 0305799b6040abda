"""Stage 1's data: people checked whole, latents streamed without memory, faces and what their cells count."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from runs import python

from metalora.backbones.pipeline import PipelineBackbone
from metalora.config import Phase, UserError
from metalora.config_meta_train import MetaTrainConfig
from metalora.jobs import run
from metalora.jobs.meta_train.data import drawn, limited, prepared
from metalora.jobs.meta_train.objectives import prefetched
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
from metalora.store.identities import read_identities
from metalora.store.images import read_photo
from metalora.store.pictures import save_image

BENCHMARK = Path(__file__).parents[1] / "metalora" / "data" / "mini_benchmark" / "manifest.jsonl"


def people_folder(folder: Path) -> Path:
    for person in ("ada", "bob", "eve"):
        (folder / person).mkdir(parents=True)
        for number in range(2):
            save_image(torch.rand(3, 64, 64), folder / person / f"{number}.png")
    (folder / "ada" / "1.txt").write_text("ada smiling\n")
    return folder


def test_people_are_folders_with_captions_beside_the_photos_or_a_manifests(tmp_path: Path):
    people = read_identities(people_folder(tmp_path))
    assert [(one.name, one.kind, len(one.photos)) for one in people] == [
        ("ada", None, 2),
        ("bob", None, 2),
        ("eve", None, 2),
    ]
    assert [photo.caption for photo in people[0].photos] == [None, "ada smiling"]
    people = read_identities(BENCHMARK)
    assert {one.kind for one in people} == {"woman", "man"}
    assert all(photo.caption.startswith("a photo of") for one in people for photo in one.photos)


def test_every_problem_of_a_manifest_is_in_one_message(tmp_path: Path):
    save_image(torch.rand(3, 8, 8), tmp_path / "a.png")
    rows = [
        {"identity": "ada", "path": "a.png", "class": "woman"},
        {"identity": "bob", "path": "a.png"},
        {"identity": "ada", "path": "gone.png", "class": "man"},
        {"identity": 7, "path": "a.png"},
        {"identity": "eve", "path": "a.png", "caption": ""},
        ["no", "object"],
    ]
    (tmp_path / "people.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\nnot json\n")
    with pytest.raises(UserError) as found:
        read_identities(tmp_path / "people.jsonl")
    for said in (
        "line 2: .*a.png is listed already, for ada", "line 3: .*gone.png does not exist",
        "ada has 2 classes: man, woman",
        "line 4: identity: 7 is not of type", "line 5: caption: ''",
        "line 6: .* is not of type 'object'", "line 7: not JSON",
        "7 problems", "Nothing was started",
    ):  # fmt: skip
        found.match(said)


@pytest.mark.parametrize("content", ["nothing", "one person", "no such file"])
def test_too_few_people_are_refused(tmp_path: Path, content: str):
    if content == "one person":
        (tmp_path / "ada").mkdir()
        save_image(torch.rand(3, 8, 8), tmp_path / "ada" / "1.png")
    with pytest.raises(UserError, match=r"needs many|cannot be read"):
        read_identities(tmp_path / "gone.jsonl" if content == "no such file" else tmp_path)


def test_latents_are_read_a_view_at_a_time_and_named_by_content(tmp_path: Path):
    photos = list(people_folder(tmp_path / "people").glob("ada/*.png"))
    cache = Cache(tmp_path / "cache")
    key = cache.key_of_files(photos, size=64)
    assert key not in cache
    latents = {"0": torch.rand(2, 16, 8, 8).half(), "1": torch.rand(2, 16, 4, 8).half()}
    cache.put(key, latents)
    assert key in cache
    assert cache.shapes(key) == {"0": (2, 16, 8, 8), "1": (2, 16, 4, 8)}
    assert torch.equal(cache.get_row(key, "1", 1), latents["1"][1].float())
    assert cache.key_of_files(photos, size=65) != key
    photos[0].write_bytes(b"another photo")
    assert cache.key_of_files(photos, size=64) != key


def test_streaming_many_entries_needs_no_memory(tmp_path: Path):
    """200 entries of 2 MB are read twice over; the process may not grow by a tenth of that."""
    cache = Cache(tmp_path)
    for number in range(200):
        cache.put(f"{number:03d}", {name: torch.full((2, 16, 64, 128), float(number)) for name in "01"})
    code = (
        "import resource, sys; from pathlib import Path; from metalora.store.cache import Cache\n"
        "cache = Cache(Path(sys.argv[1])); peaks = []\n"
        "for turn in range(3):\n"
        "    for number in range(200):\n"
        "        for photo in (0, 1):\n"
        "            assert cache.get_row(f'{number:03d}', str(photo), turn % 2)[0, 0, 0] == number\n"
        "        if turn == 0 and number == 9:\n"
        "            peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
        "    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
        "print((peaks[-1] - peaks[0]) / 1024)\n"
    )
    assert float(python(code, tmp_path).stdout) < 20, "MiB, of 400 that were read"


def test_prefetching_keeps_order_reads_ahead_but_not_far_passes_errors_on_and_stops_when_closed():
    made = []
    items = prefetched((made.append(n) or n for n in range(10)), ahead=3)
    assert next(items) == 0
    deadline = time.monotonic() + 30
    while len(made) < 4 and time.monotonic() < deadline:  # one taken, three ready
        time.sleep(0.01)
    time.sleep(0.05)
    assert len(made) == 4, "read while nobody asked, and no further"
    assert list(items) == list(range(1, 10))

    def broken():
        yield 1
        raise UserError("the disk is gone")

    with pytest.raises(UserError, match="the disk is gone"):
        list(prefetched(broken()))
    taken = []
    endless = prefetched(taken.append(n) or n for n in range(10**9))
    assert next(endless) == 0
    endless.close()
    assert len(taken) < 10


def test_fewer_people_are_some_of_more_and_the_same_are_held_out():
    everyone = read_identities(BENCHMARK)
    config = {n: MetaTrainConfig(limit_people=n, validation_people=3) for n in (0, 4, 9)}
    names = {n: [one.name for one in limited(everyone, config[n])] for n in config}
    assert len(names[0]) == len(everyone)
    assert (len(names[4]), len(names[9])) == (4 + 3, 9 + 3)
    assert set(names[4]) < set(names[9])
    assert names[9] == sorted(names[9]), "in the order in which they were"
    first = sorted(names[4], key=lambda name: drawn(name, config[4]))[:3]
    assert first == sorted(names[9], key=lambda name: drawn(name, config[9]))[:3]
    photos = {one.name: len(one.photos) for one in everyone}
    assert min(photos[name] for name in names[9]) > 1, "those with photos to be measured on come first"


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
    rows = [json.loads(line) for line in BENCHMARK.read_text().splitlines()]
    chosen = [row for name in dict.fromkeys(row["identity"] for row in rows) for row in rows if row["identity"] == name]
    names = list(dict.fromkeys(row["identity"] for row in chosen))[:4]
    lines = []
    for name in names:
        for row in [row for row in chosen if row["identity"] == name][:2]:
            lines.append({"identity": name, "path": str(BENCHMARK.parent / row["path"])})
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
