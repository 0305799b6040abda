"""The user's jobs end to end on the tiny FLUX and a real portrait."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from runs import CONFIG, CROPS, Stopped, meta_down_file, stopping_after

from metalora.backbones.pipeline import PipelineBackbone
from metalora.backbones.tiny_flux import TinyFlux
from metalora.config import CropConfig, PersonalizeConfig, UserError
from metalora.jobs import run
from metalora.jobs.lora import merge_adapter
from metalora.jobs.personalize import personalize_photos
from metalora.jobs.training_files import SavedRun
from metalora.store import files
from metalora.store.cache import Cache
from metalora.store.images import read_photo
from metalora.store.pictures import save_image


@pytest.mark.parametrize("method", ["meta-lora", "lora"])
def test_personalizing_lowers_the_validation_loss(personalize, tiny: PipelineBackbone, tmp_path: Path, method: str):
    meta_down = str(meta_down_file(tiny, tmp_path / "woman.safetensors"))
    config = replace(CONFIG, method=method)
    result = personalize(tmp_path / "ada.safetensors", config, meta_down)
    before, after = result.training.validation
    assert after < 0.95 * before
    assert len(result.training.losses) == config.steps
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "ada.adapter.safetensors",
        "ada.loss.png",
        "ada.safetensors",
        "woman.safetensors",
    ]


def test_meta_down_is_in_the_adapter_bit_by_bit_and_the_lora_is_its_fold(
    personalize, tiny: PipelineBackbone, tmp_path: Path
):
    source = meta_down_file(tiny, tmp_path / "woman.safetensors")
    personalize(tmp_path / "ada.safetensors", meta_down=str(source))
    downs, _ = files.read(source, ("meta-down",))
    adapter, metadata = files.read(tmp_path / "ada.adapter.safetensors", ("adapter",))
    assert all(torch.equal(adapter[name], down) for name, down in downs.items())
    assert metadata["meta_down"] == files.digest_of_tensors(downs)
    merged = run(merge_adapter(tmp_path / "ada.adapter.safetensors", tmp_path / "merged.safetensors", "diffusers"))
    assert merged.read_bytes() == (tmp_path / "ada.safetensors").read_bytes()
    lora, _ = files.read(merged, ("lora",))
    site = "transformer_blocks.1.attn.to_q"
    folded = adapter[f"{site}.up"] @ adapter[f"{site}.mid"] @ adapter[f"{site}.down"]
    product = lora[f"transformer.{site}.lora_B.weight"] @ lora[f"transformer.{site}.lora_A.weight"]
    torch.testing.assert_close(product, folded, rtol=0, atol=1e-6)


def test_a_run_that_was_killed_after_its_lora_was_written_is_finished_by_the_same_command(
    personalize, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out, state = tmp_path / "x.safetensors", tmp_path / "x.state.safetensors"
    with monkeypatch.context() as patched:
        patched.setattr(SavedRun, "remove", lambda self: None)
        personalize(out)
    whole = out.read_bytes()
    assert state.exists()
    with pytest.raises(UserError, match="exists already"):  # another run's LoRA is not replaced
        personalize(out, replace(CONFIG, seed=1))
    personalize(out)
    assert out.read_bytes() == whole
    assert not state.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stop_after", "options"),
    [
        (3, {}),
        (29, {}),
        (7, {"ema_steps": 4}),
        (7, {"lr_scheduler": "cosine", "lr_warmup_steps": 10}),
        (9, {"optimizer": "adamw-8bit", "ema_steps": 4}),
        (9, {"optimizer": "prodigy", "learning_rate": 1.0, "ema_steps": 4}),
    ],
)
def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(
    personalize, tmp_path: Path, stop_after: int, options: dict[str, object]
):
    whole, halves = tmp_path / "whole.safetensors", tmp_path / "halves.safetensors"
    config = replace(CONFIG, **options)
    pytest.importorskip({"adamw-8bit": "bitsandbytes", "prodigy": "prodigyopt"}.get(config.optimizer, "torch"))
    personalize(whole, config)

    with pytest.raises(Stopped):
        personalize(halves, config, show=stopping_after(stop_after, config.steps))
    assert not halves.exists()
    assert halves.with_suffix(".state.safetensors").exists()
    result = personalize(halves, config)
    assert len(result.training.losses) == CONFIG.steps
    assert halves.read_bytes() == whole.read_bytes()
    assert not halves.with_suffix(".state.safetensors").exists()


@pytest.mark.slow
def test_the_state_of_another_run_is_refused_and_kept(personalize, tmp_path: Path):
    out = tmp_path / "ada.safetensors"
    with pytest.raises(Stopped):
        personalize(out, show=stopping_after(1, CONFIG.steps))
    state = out.with_suffix(".state.safetensors")
    with pytest.raises(UserError, match=r"other settings or inputs \(options differ\)"):
        personalize(out, replace(CONFIG, learning_rate=1e-3))
    assert state.exists()
    personalize(out, replace(CONFIG, steps=31))  # more steps are the same run


@pytest.mark.slow
def test_more_photos_give_more_crops(tiny: PipelineBackbone, portrait: Path, tmp_path: Path, warm_cache: Cache):
    save_image(read_photo(portrait).flip(-1), tmp_path / "other.png")
    (tmp_path / "other.txt").write_text("a {class} in the mirror\n")
    job = personalize_photos(
        tiny,
        [portrait, tmp_path / "other.png"],
        tmp_path / "ada.safetensors",
        replace(CONFIG, steps=1),
        CROPS,
        meta_down="random",
        cache=warm_cache,
    )
    _, metadata = files.read(run(job).adapter, ("adapter",))
    assert len(json.loads(metadata["photos"])) == 2
    assert int(metadata["crops"]) > 1.5 * 21  # of the portrait alone
    assert json.loads(metadata["captions"]) == ["", "a woman in the mirror"]


@pytest.mark.slow
def test_loras_on_the_way_are_those_of_shorter_trainings_and_the_last_ones_stay(personalize, tmp_path: Path):
    out = tmp_path / "ada.safetensors"
    config = replace(CONFIG, lora_every=6, loras_kept=2, ema_steps=4)
    personalize(out, config)
    assert sorted(path.name for path in tmp_path.glob("*-step*")) == [
        "ada-step00018.safetensors",
        "ada-step00024.safetensors",
    ]
    shorter = tmp_path / "shorter.safetensors"
    personalize(shorter, replace(config, steps=18, lora_every=0))
    tensors, metadata = files.read(tmp_path / "ada-step00018.safetensors", ("lora",))
    wanted, _ = files.read(shorter, ("lora",))
    assert metadata["step"] == "18"
    assert all(torch.equal(tensors[name], wanted[name]) for name in wanted)
    out.unlink()
    with pytest.raises(UserError, match=r"ada-step00018.safetensors is of an earlier"):
        personalize(out, config)


@pytest.mark.parametrize(("name", "package"), [("adamw-8bit", "bitsandbytes"), ("prodigy", "prodigyopt")])
def test_an_optimizer_whose_package_is_missing_is_refused_before_any_work(
    personalize, tmp_path: Path, monkeypatch, name: str, package: str
):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, f"{package}.optim", None)
    config = replace(CONFIG, optimizer=name, learning_rate=1.0)
    with pytest.raises(UserError, match=f"--optimizer {name} needs the package {package}: pip install {package}"):
        personalize(tmp_path / "ada.safetensors", config)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_prior_preservation_runs_and_keeps_its_images(personalize, tmp_path: Path):
    config = replace(CONFIG, steps=2, prior_weight=1.0, prior_images=2)
    plain = personalize(tmp_path / "plain.safetensors", replace(config, prior_weight=0.0))
    with_prior = personalize(tmp_path / "prior.safetensors", config)
    assert with_prior.lora.read_bytes() != plain.lora.read_bytes()


def loads(
    photo: Path, out: Path, cache: Cache, config: PersonalizeConfig = CONFIG, crops: CropConfig = CROPS
) -> list[str]:
    """The parts that a run loads, in order."""
    backbone, loaded = PipelineBackbone(TinyFlux(), torch.device("cpu"), torch.float32), []
    for part in ("text_encoders", "autoencoder", "transformer"):
        backbone.fingerprint(part)  # the tiny one draws its weights to know them: not what is counted here
        load = getattr(backbone.parts, part)
        counted = lambda *where, part=part, load=load: (loaded.append(part), load(*where))[1]  # noqa: E731
        setattr(backbone.parts, part, counted)
    run(personalize_photos(backbone, [photo], out, replace(config, steps=1), crops, meta_down="random", cache=cache))
    return loaded


@pytest.mark.slow
def test_a_cache_hit_loads_neither_autoencoder_nor_text_encoders_and_a_changed_photo_is_a_miss(
    portrait: Path, tmp_path: Path
):
    cache = Cache(tmp_path / "cache")
    everything = ["text_encoders", "autoencoder", "transformer"]
    assert loads(portrait, tmp_path / "a.safetensors", cache) == everything
    assert loads(portrait, tmp_path / "b.safetensors", cache) == ["transformer"]
    renamed = Path(shutil.copy(portrait, tmp_path / "renamed.jpg"))
    assert loads(renamed, tmp_path / "c.safetensors", cache) == ["transformer"]
    changed = read_photo(portrait)
    changed[:, 300, 300] = 1 - changed[:, 300, 300]
    save_image(changed, tmp_path / "changed.png")
    assert loads(tmp_path / "changed.png", tmp_path / "d.safetensors", cache) == ["autoencoder", "transformer"]
    caption = replace(CONFIG, caption="{class}, close up")
    assert loads(portrait, tmp_path / "e.safetensors", cache, caption) == ["text_encoders", "transformer"]
    smaller = CropConfig(resolution=80)
    assert loads(portrait, tmp_path / "f.safetensors", cache, crops=smaller) == ["autoencoder", "transformer"]


def test_files_hold_no_path_and_no_photo(personalize, tmp_path: Path):
    personalize(tmp_path / "ada.safetensors")
    for name in ("ada.safetensors", "ada.adapter.safetensors"):
        data = (tmp_path / name).read_bytes()
        assert b"astronaut" not in data
        assert str(tmp_path).encode() not in data
        _, metadata = files.read(tmp_path / name, ("lora", "adapter"))
        assert json.loads(metadata["photos"])[0] != ""
        assert {"base", "domain", "sites", "rank", "meta_rank", "options", "meta_down"} <= metadata.keys()
