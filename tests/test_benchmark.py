"""Laws of a benchmark run."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from statistics import mean

import pytest
import torch
from benchmarks import CROPS, INPUTS, WITH_CLIP, finished, mini_people, planned

from metalora.backbones.pipeline import PipelineBackbone
from metalora.backbones.pipeline_folder import Miniature
from metalora.backbones.tiny_flux import TinyFlux
from metalora.config import UserError
from metalora.jobs import run
from metalora.jobs.benchmark.plan import Layout, Plan
from metalora.jobs.benchmark.plan_file import located, read_plan
from metalora.jobs.benchmark.prepare import mini_benchmark
from metalora.jobs.benchmark.run import run_benchmark
from metalora.jobs.benchmark.shares import Share, units_of
from metalora.jobs.evaluate.photos import only_embedding
from metalora.jobs.personalize import personalize_photos
from metalora.measure import load_faces
from metalora.store.cache import Cache
from metalora.store.manifest import Identity
from metalora.store.pictures import read_image_metadata
from metalora.store.text import problems_by_schema

pytestmark = pytest.mark.slow

MINI = mini_benchmark()


@pytest.fixture(scope="module")
def people() -> list[Identity]:
    return mini_people()


@pytest.fixture(scope="module")
def done(
    tiny: PipelineBackbone, warm_cache: Cache, people: list[Identity], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A finished run of all three methods, and of real photos as the images of a fourth: one a person is missing."""
    folder = tmp_path_factory.mktemp("run")
    plan = planned(folder, tiny, WITH_CLIP)
    for person, own in zip(plan.people, people, strict=False):
        bring(folder, plan, person.identity, own, leave_out=1)
    finished(folder, tiny, warm_cache)
    return folder


def bring(folder: Path, plan: Plan, identity: str, own: Identity, leave_out: int) -> None:
    """The person's held-out photos as images of the method `photos`; the last ones are not brought."""
    wanted = [f"{prompt.id}-{seed}.png" for prompt in plan.prompts for seed in plan.seeds]
    target = folder / "external" / "photos" / identity
    target.mkdir(parents=True)
    for index, name in enumerate(wanted[: len(wanted) - leave_out]):
        shutil.copy(own.held_out[index % len(own.held_out)].path, target / name)  # a JPEG by content: it is opened


def results_of(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def variant_of(folder: Path, name: str) -> dict:
    return next(variant for variant in results_of(folder)["variants"] if variant["id"] == name)


def test_the_results_keep_to_the_schema_with_a_row_for_each_method_step_count_and_folder_and_list_what_is_missing(
    done: Path,
):
    assert problems_by_schema(results_of(done), "results") == []
    assert results_of(done)["embedders"]["clip"]["truncated"] == []
    trained = [f"{method}-{steps}-r1" for method in ("meta-lora", "lora") for steps in (3, 5)]
    assert [variant["id"] for variant in results_of(done)["variants"]] == ["none", *trained, "external-photos"]
    for variant in results_of(done)["variants"][:-1]:
        assert len(variant["images"]) == 5 * 2 * 2
        assert variant["missing"] == []
    variant, plan = variant_of(done, "external-photos"), read_plan(done)
    last = f"{plan.prompts[-1].id}-{plan.seeds[-1]}.png"
    assert variant["missing"] == [f"external/photos/{person.identity}/{last}" for person in plan.people]
    assert len(variant["images"]) == 5 * 3


def test_scores_are_those_of_the_faces_by_hand(done: Path, people: list[Identity]):
    variant, analyser = variant_of(done, "external-photos"), load_faces()
    by_identity = {}
    for own in people[:5]:
        held_out = torch.stack([only_embedding(analyser, photo.path) for photo in own.held_out])
        reference = only_embedding(analyser, own.reference.path)
        images = [image for image in variant["images"] if image["identity"] == own.name]
        for index, image in enumerate(images):
            assert image["held_out"] == pytest.approx((held_out[index] @ held_out.T).mean().item(), abs=1e-5)
            assert image["reference"] == pytest.approx((held_out[index] @ reference).item(), abs=1e-5)
        prompts = {image["prompt"] for image in images}
        cells = [mean(i["held_out"] for i in images if i["prompt"] == prompt) for prompt in sorted(prompts)]
        by_identity[own.name] = mean(cells)
    figure = variant["summary"]["r_facesim"]
    assert figure["left out"]["mean"] == pytest.approx(mean(by_identity.values()))
    assert figure["left out"]["count"] == 5
    assert figure["left out"] == figure["as zero"]  # every image that is there shows a face
    assert variant["summary"]["detection_rate"] == 1.0
    assert variant["summary"]["position"] > 0.9  # photos of the very people


def test_real_photos_are_found_in_the_gallery_and_images_without_a_face_count_as_zero(done: Path):
    assert len(read_plan(done).gallery) == 16, "everyone with held-out photos"
    assert variant_of(done, "external-photos")["summary"]["identified"]["mean"] == 1.0
    summary = variant_of(done, "lora-5-r1")["summary"]
    assert summary["identified"]["mean"] == summary["detection_rate"] == 0.0
    assert summary["r_facesim"]["left out"] is None, "nothing is left to average"
    assert summary["r_facesim"]["as zero"]["mean"] == 0.0
    assert summary["position"] is None


def test_comparisons_are_paired_over_people(done: Path):
    found = results_of(done)["comparisons"]
    (one,) = (
        c
        for c in found
        if (c["one"], c["other"], c["score"], c["misses"]) == ("none", "external-photos", "r_facesim", "as zero")
    )
    mine = variant_of(done, "external-photos")["summary"]["r_facesim"]["as zero"]
    assert one["mean"] == pytest.approx(-mine["mean"])
    assert one["count"] == 5
    assert one["high"] < 0
    assert not [c for c in found if c["misses"] == "left out"]  # no method but the photos shows a face


def test_every_image_has_noise_of_its_own_that_all_methods_share_and_people_of_a_class_share_those_without_a_lora(
    done: Path,
):
    metadata = {
        variant["id"]: [
            json.loads(read_image_metadata(done / image["path"])["metalora"])["seed"] for image in variant["images"]
        ]
        for variant in results_of(done)["variants"][:-1]
    }
    seeds = metadata.pop("none")
    assert all(others == seeds for others in metadata.values())
    assert len(set(seeds)) == 2 * 2  # prompts x seeds; people share them
    images = variant_of(done, "none")["images"]
    assert len({image["path"] for image in images}) == 2 * 2 * 2  # classes x prompts x seeds
    assert {image["identity"] for image in images} == {person.identity for person in read_plan(done).people}


def test_fewer_steps_are_a_snapshot_of_more(done: Path, tiny: PipelineBackbone, warm_cache: Cache, tmp_path: Path):
    planned(tmp_path, tiny, step_counts=(3,), methods=("meta-lora",), prompts_each=1)
    finished(tmp_path, tiny, warm_cache)
    alone = variant_of(tmp_path, "meta-lora-3-r1")["lora_sha256"]
    assert alone == variant_of(done, "meta-lora-3-r1")["lora_sha256"]
    assert alone != variant_of(done, "meta-lora-5-r1")["lora_sha256"]


@pytest.mark.parametrize(("method", "source"), [("meta-lora", "crops"), ("lora", "whole"), ("lora", "crops")])
def test_one_at_a_time_is_metalora_personalize_to_the_byte(
    tiny: PipelineBackbone, warm_cache: Cache, people: list[Identity], tmp_path: Path, method: str, source: str
):
    shared = {"people": 1, "together": 1, "prompts_each": 1, "step_counts": (4,)}
    crops = replace(CROPS, learn_from=source)
    plan = planned(tmp_path / "run", tiny, crops=crops, methods=(method,), **shared)
    finished(tmp_path / "run", tiny, warm_cache)
    person = plan.people[0]
    config = plan.training_of(method, 1, person, 4)
    assert (config.seed, config.class_name) == (person.seed, people[0].class_name)
    down = located(plan.meta_downs[person.class_name]["path"], tmp_path / "run") if method == "meta-lora" else None
    out = tmp_path / "alone.safetensors"
    run(personalize_photos(tiny, [people[0].reference.path], out, config, crops, meta_down=down, cache=warm_cache))
    layout = Layout(tmp_path / "run")
    assert layout.lora(plan.variants()[0], person).read_bytes() == out.read_bytes()


def test_people_of_one_class_are_put_together_and_all_are_dealt(done: Path):
    plan, layout = read_plan(done), Layout(done)
    groups = {person.group: {p.class_name for p in plan.people if p.group == person.group} for person in plan.people}
    assert all(len(classes) == 1 for classes in groups.values())
    units = units_of(plan, layout)
    for processes in (1, 2, 3, 7):
        dealt = [unit.name for rank in range(processes) for unit in Share(rank, processes).of(units)]
        assert sorted(dealt) == sorted(unit.name for unit in units)


def test_a_finished_run_does_nothing_again(done: Path, tiny: PipelineBackbone, warm_cache: Cache):
    before = {path: path.stat().st_mtime_ns for path in done.rglob("*.png")}
    results = (done / "results.json").read_bytes()
    assert finished(done, tiny, warm_cache) == results
    assert {path: path.stat().st_mtime_ns for path in done.rglob("*.png")} == before


def test_what_was_lost_is_made_again_to_the_same_bytes(
    done: Path, tiny: PipelineBackbone, warm_cache: Cache, tmp_path: Path
):
    copy = shutil.copytree(done, tmp_path / "copy")
    for lost in (
        "loras/meta-lora-3-r1",
        "images/lora-5-r1",
        "images/none/woman/several-01-0.png",
        "scores/lora-3-r1",
        "results.json",
    ):
        path = copy / lost
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert finished(copy, tiny, warm_cache) == (done / "results.json").read_bytes()


def test_a_lora_that_is_deleted_while_its_group_is_trained_is_made_again(
    tiny: PipelineBackbone, warm_cache: Cache, tmp_path: Path
):
    planned(tmp_path, tiny, methods=("lora",), people=1, prompts_each=1)
    job = run_benchmark(tmp_path, tiny, warm_cache, Share())
    while not list(tmp_path.glob("loras/lora-3-r1/*.safetensors")):
        next(job)
    job.close()
    (lora,), (_state,) = tmp_path.glob("loras/lora-3-r1/*"), tmp_path.glob("states/*")
    before = lora.read_bytes()
    lora.unlink()
    finished(tmp_path, tiny, warm_cache)
    assert lora.read_bytes() == before


def test_images_brought_later_are_scored_later(done: Path, tiny: PipelineBackbone, warm_cache: Cache, tmp_path: Path):
    copy, plan = shutil.copytree(done, tmp_path / "copy"), read_plan(done)
    missing = variant_of(done, "external-photos")["missing"]
    for path in missing:
        shutil.copy(copy / plan.people[0].reference, copy / path)
    finished(copy, tiny, warm_cache)
    variant = variant_of(copy, "external-photos")
    assert variant["missing"] == []
    assert variant["images"][3]["reference"] == pytest.approx(1.0)  # the first person's own reference


def test_a_changed_input_is_refused(tiny: PipelineBackbone, warm_cache: Cache, tmp_path: Path):
    shutil.copytree(MINI, tmp_path / "mini")
    inputs = replace(INPUTS, manifest=tmp_path / "mini" / "manifest.jsonl", prompts=tmp_path / "mini" / "prompts.json")
    planned(tmp_path / "run", tiny, inputs)
    for name in ("manifest.jsonl", "prompts.json"):
        with (tmp_path / "mini" / name).open("a") as file:
            file.write("\n")
    (tmp_path / "run" / "meta-downs" / "random.safetensors").unlink()
    planned(tmp_path / "other", tiny, seeds=(5,))
    shutil.copytree(tmp_path / "other" / "meta-downs", tmp_path / "run" / "meta-downs", dirs_exist_ok=True)
    with pytest.raises(UserError, match=r"this has changed: the manifest .*; the prompts .*plan again in another"):
        finished(tmp_path / "run", tiny, warm_cache)


def test_an_image_that_another_plan_made_is_refused(
    done: Path, tiny: PipelineBackbone, warm_cache: Cache, tmp_path: Path
):
    copy = shutil.copytree(done, tmp_path / "copy")
    images = copy / "images" / "lora-5-r1"
    first, second = sorted(path for path in images.iterdir())[:2]
    shutil.copy(first / "several-01-0.png", second / "several-01-0.png")
    (second / "several-01-1.png").unlink()
    with pytest.raises(UserError, match=r"several-01-0.png is not the image that this plan makes there"):
        finished(copy, tiny, warm_cache)


def test_images_may_be_made_by_a_sister_of_the_base(tiny: PipelineBackbone, warm_cache: Cache, tmp_path: Path):
    sister, few = PipelineBackbone(TinyFlux(seed=1), tiny.device, tiny.dtype), {"methods": ("lora",), "people": 1}
    made = []
    for draws in (None, sister):
        folder = tmp_path / ("sister" if draws else "own")
        planned(folder, tiny, draws=draws, step_counts=(2,), **few)
        finished(folder, tiny, warm_cache, draws)
        found = [path for kind in ("loras", "images") for path in sorted((folder / kind).rglob("*.*"))]
        made.append({path.relative_to(folder): path.read_bytes() for path in found})
    own, drawn = made
    assert own.keys() == drawn.keys()
    assert {path.suffix for path in own if own[path] == drawn[path]} == {".safetensors"}
    with pytest.raises(UserError, match="the base that makes the images"):
        finished(tmp_path / "sister", tiny, warm_cache)
    other = PipelineBackbone(Miniature(), tiny.device, tiny.dtype)
    with pytest.raises(UserError, match=r"--draw-with is a flux-.*, and LoRAs of flux-128x2x2 do not fit it"):
        planned(tmp_path / "other", tiny, draws=other, **few)
