"""What `generate` makes: a file for every prompt, with and without a LoRA; and what it says or refuses."""

import unicodedata
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metalora.backbones.pipeline import PipelineBackbone
from metalora.backbones.pipeline_folder import Miniature
from metalora.config import GenerateConfig, Phase, UserError
from metalora.jobs import run
from metalora.jobs.generate import generate_images, plan_images, unique_names
from metalora.jobs.photos import prompt_embeddings, unread_ends
from metalora.store import files
from metalora.store.cache import Cache
from metalora.store.images import read_photo


def alike(name: str) -> str:
    """What a disk compares that ignores case and takes an accented letter for the letter and its accent."""
    return unicodedata.normalize("NFD", name.casefold())


def check(prompts: Sequence[str]) -> list[str]:
    config = GenerateConfig(images_per_prompt=3)
    planned = plan_images(prompts, Path("out"), config, with_lora=True, compare=True)
    names = [image.path.name for image in planned]
    assert len({alike(name) for name in names}) == len(prompts) * 6
    assert all(len(name.encode()) < 200 and not set(name) & set('/\\:*?"<>|\0') for name in names)
    return names


@pytest.mark.parametrize(
    "prompts",
    [
        ["a woman, age 3", "a woman, age", "a woman: age?"],
        ["a woman, age", "a woman: age?", "a woman, age 2", "a woman, age 3"],
        ["女の人", "女の子", "男の人", "!!!", "???", "🙂", "🙃"],
        ["हिंदी", "हिंदु", "سلام", "سَلام", "Привет", "привет"],
        ["café", "cafe\u0301", "CAFÉ", "straße", "STRASSE", "İstanbul", "i̇stanbul"],
        ["x" * 500 + "a", "x" * 500 + "b", "漢" * 500, "漢" * 501],
        ["same", "same", "same 2", "same"],
    ],
    ids=["commas", "numbers", "other-scripts", "marks", "case-and-accents", "long", "twice"],
)
def test_every_prompt_has_a_file_of_its_own_in_any_script(prompts: list[str]):
    check(prompts)


def test_names_are_made_of_the_letters_of_the_prompt():
    assert unique_names(["A photo of a woman, in Rome!"]) == ["a-photo-of-a-woman-in-rome"]
    assert unique_names(["女の人"]) == ["女の人"]
    assert unique_names(["a woman", "a woman?"]) == ["a-woman", "a-woman-2"]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(st.sampled_from("aA1 -ée\u0301女🙂?2"), min_size=1, max_size=6), min_size=1, max_size=12))
def test_no_two_files_of_any_prompts_are_alike(prompts: list[str]):
    check(prompts)


@pytest.fixture(scope="module")
def miniature() -> PipelineBackbone:
    return PipelineBackbone(Miniature(), torch.device("cpu"), torch.float32)


LONG = "a photo of a woman in a green room with a large window and a red chair and a blue lamp and a white wall"


def test_the_end_that_a_base_does_not_read_is_said_also_when_it_comes_from_the_cache(
    miniature: PipelineBackbone, tmp_path: Path
):
    end = miniature.unread(LONG)
    assert LONG.endswith(end)
    assert 0 < len(end) < len(LONG)
    head = LONG.removesuffix(end).strip()
    assert miniature.unread(head) == ""
    said: list[object] = []
    for _ in range(2):
        long, short = run(prompt_embeddings([LONG, head], miniature, Cache(tmp_path)), said.append)
        assert torch.equal(long["tokens"], short["tokens"]), "what was cut changes nothing"
    sentences = [shown.text for shown in said if isinstance(shown, Phase)]
    assert sum(f"{LONG!r} is read without {end!r}" in sentence for sentence in sentences) == 2
    assert unread_ends(["a photo of a woman"], miniature) is None


def test_a_prompt_of_bytes_that_are_no_text_is_refused(tiny: PipelineBackbone, tmp_path: Path, warm_cache: Cache):
    job = generate_images(
        tiny, ["caf\udce9"], tmp_path, GenerateConfig(width=64, height=64), lora=None, compare=False, cache=warm_cache
    )
    with pytest.raises(UserError, match="UTF-8 is needed"):
        run(job)


@pytest.mark.slow
def test_images_are_made_with_and_without_the_lora_and_kept_when_repeated(
    personalize, tiny: PipelineBackbone, tmp_path: Path, warm_cache: Cache
):
    lora = personalize(tmp_path / "ada.safetensors").lora
    config = GenerateConfig(width=64, height=80, sampling_steps=2, images_per_prompt=2)

    def made(**options: object):
        return run(
            generate_images(
                tiny, ["a photo of a woman", "a painting"], tmp_path / "images", config, cache=warm_cache, **options
            )
        )

    images = made(lora=lora, compare=True)
    assert len(images) == len({image.path for image in images}) == 8
    for worn, bare in zip(images[::2], images[1::2], strict=True):
        assert read_photo(worn.path).shape == (3, 80, 64)
        assert not torch.equal(read_photo(worn.path), read_photo(bare.path))
    before = {image.path: image.path.stat().st_mtime_ns for image in images}
    again = made(lora=lora, compare=True)
    assert {image.path: image.path.stat().st_mtime_ns for image in again} == before
    with pytest.raises(UserError, match="made with other settings"):
        made(lora=None, compare=False)


@pytest.mark.slow
def test_a_lora_of_another_base_is_refused(personalize, tiny: PipelineBackbone, tmp_path: Path, warm_cache: Cache):
    """By its name; of a file that names no base, by its layers: test_lora_formats.py and test_lora_makers.py."""
    tensors, metadata = files.read(personalize(tmp_path / "ada.safetensors").lora, ("lora",))
    other = {**metadata, "base": "flux.1-dev"}
    files.write(tmp_path / "other.safetensors", tensors, other.pop("kind"), other)
    config, options = GenerateConfig(width=64, height=64, sampling_steps=1), {"compare": False, "cache": warm_cache}
    with pytest.raises(UserError, match=r"made for 'flux.1-dev', but the loaded model is 'flux-128x2x2'"):
        run(generate_images(tiny, ["x"], tmp_path / "out", config, lora=tmp_path / "other.safetensors", **options))
    assert not (tmp_path / "out").exists()
