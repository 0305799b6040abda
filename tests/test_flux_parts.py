"""FLUX.1: its parts are the same wherever they come from, what is missing is said with its place; packing, schedule."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from comfy_files import save_pipeline, save_single_files, write
from diffusers import FluxPipeline
from safetensors.torch import load_file
from tiny_bases import our_image, strong_adapters

from metalora.backbones.families.flux import schedule, scheduler_config
from metalora.backbones.family import pack, positions, unpack
from metalora.backbones.pipeline import Parts, PipelineBackbone, find_parts
from metalora.backbones.pipeline_folder import WHOLE, PipelineFolder, fingerprint_of_file
from metalora.backbones.single_files import SingleFiles
from metalora.backbones.tiny_flux import SHAPE, TinyFlux
from metalora.config import UserError
from metalora.jobs.lora import load_lora, lora_adapters
from metalora.jobs.training_files import save_lora
from metalora.method.adapter import fold_all

TEXTS = ("tokenizer", "text_encoder", "tokenizer_2", "text_encoder_2")
PARTS = ("text_encoders", "autoencoder", "transformer")
PROMPT = "a photo of a man wearing a tie, Ünïcode 漢字!"


@pytest.fixture(scope="module")
def pipeline_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pipeline")
    save_pipeline(TinyFlux(), folder)
    return folder


@pytest.fixture(scope="module")
def single_files(tmp_path_factory) -> dict[str, Path]:
    return save_single_files(TinyFlux(), tmp_path_factory.mktemp("files"))


@pytest.fixture
def single(single_files, pipeline_folder) -> Callable[..., SingleFiles]:
    return lambda **others: SingleFiles(pipeline_folder, single_files | others)


@pytest.fixture(params=["folder", "files", "one file"])
def copied(request, pipeline_folder, single_files, single, tmp_path: Path) -> Parts:
    if request.param != "one file":
        return PipelineFolder(pipeline_folder) if request.param == "folder" else single()
    prefixes = {"transformer": "model.diffusion_model.", "vae": "vae."}
    prefixes |= {part: f"text_encoders.{part}.transformer." for part in ("clip_l", "t5xxl")}
    parts = {part: load_file(single_files[part]) for part in prefixes}
    whole = {prefixes[part] + name: tensor for part, own in parts.items() for name, tensor in own.items()}
    return single(**dict.fromkeys(prefixes, write(whole, tmp_path / "all.safetensors")))


@torch.no_grad()
def outputs(parts: Parts) -> dict[str, Any]:
    """What each part makes of fixed inputs."""
    texts = parts.text_encoders("cpu", torch.float32)
    clip_tokenizer, clip, t5_tokenizer, t5 = (texts[name] for name in TEXTS)
    pooled = clip(clip_tokenizer(PROMPT, return_tensors="pt", padding="max_length").input_ids).pooler_output
    tokens = t5(t5_tokenizer(PROMPT, return_tensors="pt", padding="max_length", max_length=64).input_ids)[0]
    vae = parts.autoencoder("cpu", torch.float32)
    latents = vae.encode(torch.linspace(-1, 1, 3 * 32 * 32).view(1, 3, 32, 32)).latent_dist.mode()
    velocity = parts.transformer("cpu", torch.float32)(
        hidden_states=torch.randn(1, 16, 64, generator=torch.Generator().manual_seed(0)),
        encoder_hidden_states=tokens,
        pooled_projections=pooled,
        timestep=torch.tensor([0.5]),
        guidance=torch.tensor([1.0]),
        img_ids=torch.cartesian_prod(torch.zeros(1), torch.arange(4.0), torch.arange(4.0)),
        txt_ids=torch.zeros(tokens.shape[1], 3),
    ).sample
    return {
        "pooled": pooled,
        "tokens": tokens,
        "latents": latents,
        "image": vae.decode(latents).sample,
        "velocity": velocity,
    }


def test_tiny_is_the_same_in_every_run_and_leaves_the_callers_random_numbers_alone():
    a, b = outputs(TinyFlux()), outputs(TinyFlux())
    assert all(torch.equal(a[name], b[name]) for name in a)
    for part in PARTS:
        assert TinyFlux().fingerprint(part) == TinyFlux().fingerprint(part) != TinyFlux(seed=1).fingerprint(part)
    state = torch.get_rng_state()
    outputs(TinyFlux())
    assert torch.equal(torch.get_rng_state(), state)


def test_the_parts_are_the_same_from_a_folder_and_from_single_files(copied: Parts):
    original = TinyFlux()
    theirs, ours = outputs(copied), outputs(original)
    for name in ours:
        # not always equal: weights that stay in the file lie at other addresses, where sums may be rounded differently
        torch.testing.assert_close(theirs[name], ours[name], rtol=1e-4, atol=1e-4)
    for part in ("autoencoder", "transformer"):
        a, b = (getattr(parts, part)("cpu", torch.float32).state_dict() for parts in (copied, original))
        assert a.keys() == b.keys()
        assert not [name for name in a if not torch.equal(a[name], b[name])]
    assert copied.architecture == original.architecture
    assert copied.max_tokens == original.max_tokens
    assert copied.weights_bytes() == original.weights_bytes()
    assert original.scheduler_config.items() <= copied.scheduler_config.items()
    assert copied.missing() == []


def test_each_part_arrives_in_the_asked_for_precision(copied: Parts):
    texts = copied.text_encoders("cpu", torch.bfloat16)
    clip, t5 = texts["text_encoder"], texts["text_encoder_2"]
    models = (clip, t5, copied.autoencoder("cpu", torch.bfloat16), copied.transformer("cpu", torch.bfloat16))
    for model in models:
        assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
        assert not model.training


def test_shape_sizes_and_missing_files_are_known_without_loading_a_weight(copied: Parts, monkeypatch):
    import safetensors

    monkeypatch.delattr(safetensors, "safe_open")
    assert copied.architecture.name == "flux-128x2x2"
    assert set(copied.weights_bytes()) == set(PARTS)
    assert copied.missing() == []


def test_tokenizers_are_found_in_a_comfyui_folder_too(single_files, single, tmp_path: Path):
    for ours, theirs in (("tokenizer", "comfy/sd1_tokenizer"), ("tokenizer_2", "comfy/text_encoders/t5_tokenizer")):
        (tmp_path / theirs).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / theirs).symlink_to(single_files["tokenizers"] / ours)
    texts = single(**{"tokenizers": tmp_path}).text_encoders("cpu", torch.float32)
    original = TinyFlux().text_encoders("cpu", torch.float32)
    for name in ("tokenizer", "tokenizer_2"):
        assert texts[name](PROMPT).input_ids == original[name](PROMPT).input_ids


@pytest.fixture
def offline(monkeypatch):
    """The hub cannot be reached and its cache is empty."""
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def refuse(name: str, allow_patterns: list[str]):
        raise LocalEntryNotFoundError("Cannot find an appropriate cached snapshot folder.")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)


def test_without_the_hub_the_licence_the_login_and_the_way_to_tokenizers_are_explained(
    offline, single_files, single, tmp_path: Path
):
    parts = PipelineFolder("black-forest-labs/FLUX.1-dev")
    with pytest.raises(UserError, match=r"gated: accept its licence.*hf auth login"):
        _ = parts.folder
    assert "hf auth login" in parts.missing()[0]
    parts = find_parts("flux-dev", {name: path for name, path in single_files.items() if name != "tokenizers"})
    with pytest.raises(UserError, match=r"--tokenizers: .* for FLUX\.1 your ComfyUI folder"):
        parts.text_encoders("cpu", torch.float32)
    assert len(single(**{"tokenizers": tmp_path}).missing()) == 1


def test_what_is_no_pipeline_is_refused(tmp_path: Path, pipeline_folder: Path):
    with pytest.raises(UserError, match=r"no model_index\.json"):
        _ = PipelineFolder(tmp_path).architecture
    with pytest.raises(UserError, match="neither a folder nor a hub name"):
        _ = PipelineFolder(tmp_path / "nowhere").architecture
    for name in ("model_index.json", "transformer", "scheduler"):
        (tmp_path / name).symlink_to(pipeline_folder / name)
    incomplete = PipelineFolder(tmp_path)
    assert len(incomplete.missing()) == 8
    with pytest.raises(UserError, match=r"vae.config\.json is missing: copy the pipeline's vae folder there"):
        incomplete.autoencoder("cpu", torch.float32)
    assert incomplete.transformer("cpu", torch.float32) is not None


def test_a_missing_shard_is_named(tmp_path: Path, pipeline_folder: Path):
    shutil.copytree(pipeline_folder, tmp_path, dirs_exist_ok=True)
    index = {"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}
    (tmp_path / "transformer" / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "transformer" / "diffusion_pytorch_model.safetensors").rename(
        tmp_path / "transformer" / "model-1-of-2.safetensors"
    )
    with pytest.raises(UserError, match=r"model-2-of-2\.safetensors is missing"):
        PipelineFolder(tmp_path).transformer("cpu", torch.float32)


def test_a_fingerprint_follows_the_content_and_not_the_name(tmp_path: Path, single_files, single):
    parts, original = single(), single_files["vae"]
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(original.read_bytes())
    assert fingerprint_of_file(moved) == fingerprint_of_file(original)
    data = bytearray(original.read_bytes())
    data[-1] ^= 1
    moved.write_bytes(data)
    assert single(**{"vae": moved}).fingerprint("autoencoder") != parts.fingerprint("autoencoder")
    assert len({parts.fingerprint(part) for part in PARTS}) == 3


@pytest.mark.skipif(sys.platform == "win32", reason="needs a file with holes")
def test_a_large_files_fingerprint_sees_header_size_and_samples(tmp_path: Path):
    def written(name: str, size: int, header: bytes, at: int, byte: bytes) -> str:
        with (tmp_path / name).open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            file.truncate(size)
            file.seek(at)
            file.write(byte)
        return fingerprint_of_file(tmp_path / name)

    size = WHOLE + 2**20
    base = written("a", size, b"{ }", size // 2, b"\0")
    assert written("b", size, b"{ }", size // 2, b"\0") == base
    assert written("c", size + 1, b"{ }", size // 2, b"\0") != base
    assert written("d", size, b"{  }", size // 2, b"\0") != base
    assert written("e", size, b"{ }", size - 1, b"x") != base


@pytest.mark.parametrize("key_format", ["diffusers", "bfl", "kohya"])
def test_a_lora_file_of_every_key_format_gives_the_live_adapters_image(
    tiny: PipelineBackbone, tmp_path: Path, key_format: str
):
    adapters = strong_adapters(tiny, strength=0.2)
    save_lora(tmp_path / "person.safetensors", fold_all(adapters), key_format, SHAPE, {"base": tiny.name})
    lora, _ = load_lora(tmp_path / "person.safetensors", tiny)
    assert (our_image(tiny, lora_adapters(lora, tiny, 1.0)) - our_image(tiny, adapters)).abs().max() < 1e-4


def test_packing_positions_and_the_schedule_are_the_pipelines():
    latents = torch.randn(2, 16, 8, 12)
    assert torch.equal(pack(latents), FluxPipeline._pack_latents(latents, 2, 16, 8, 12))
    assert torch.equal(unpack(pack(latents), 8, 12), latents)
    assert torch.equal(positions(4, 6), FluxPipeline._prepare_latent_image_ids(1, 4, 6, "cpu", torch.float32))
    small, large = (schedule(10, tokens, scheduler_config(SHAPE)) for tokens in (256, 4096))
    assert small[0] == large[0] == 1
    assert small[-1] == large[-1] == 0
    assert (large[1:-1] > small[1:-1]).all()
    assert (large.diff() < 0).all()


def test_prompts_and_latents_are_the_same_each_time_and_differ_between_inputs(tiny: PipelineBackbone):
    with tiny.text_encoders() as encode:
        same, again, other = encode("a woman"), encode("a woman"), encode("a man")
    assert torch.equal(same["tokens"], again["tokens"])
    assert not torch.allclose(same["tokens"], other["tokens"])
    assert not torch.allclose(same["pooled"], other["pooled"])
    image = torch.rand(3, 64, 64)
    with tiny.autoencoder() as autoencoder:
        assert torch.equal(autoencoder.encode(image), autoencoder.encode(image))
        assert autoencoder.decode(autoencoder.encode(image)).shape == image.shape


def test_a_part_is_freed_when_its_context_ends(tiny: PipelineBackbone):
    with tiny.denoiser() as denoiser:
        pass
    with pytest.raises(AttributeError):
        _ = denoiser.network
