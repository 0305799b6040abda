"""Bases from the single files that ComfyUI users have: every family, every kind of fp8, and what does not fit."""

import json
from collections.abc import Callable
from pathlib import Path

import comfy_files
import pytest
import torch
from comfy_files import BFL, LDM, Z_IMAGE, as_they_name, scaled_fp8, write
from tiny_bases import Bases
from torch import Tensor, nn

from metalora.backbones.bases import BASES
from metalora.backbones.pipeline import find_parts
from metalora.backbones.pipeline_folder import PipelineFolder
from metalora.backbones.single_files import SingleFiles, filled, flux_of
from metalora.config import UserError

RECORDED = json.loads((Path(__file__).parent / "data" / "flux1_dev_keys.json").read_text())
TRANSFORMERS: dict[str, comfy_files.Renames] = {"z-image": Z_IMAGE, "flux.2-klein": BFL, "qwen-image": {}}
ENCODERS = {  # family -> what its file calls what transformers calls so
    "flux.1": {},
    "z-image": {"": "model."},
    "flux.2-klein": {},
    "qwen-image": {"model.visual.": "visual.", "model.language_model.": "model."},
    "krea-2": {"": "model."},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Bases:
    return Bases(tmp_path_factory.mktemp("bases"))


def same(model: nn.Module, other: nn.Module) -> bool:
    a, b = model.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def their_transformer(folders: Bases, family: str) -> dict[str, Tensor]:
    return as_they_name(
        PipelineFolder(folders[family]).transformer("cpu", torch.float32).state_dict(), TRANSFORMERS[family]
    )


@pytest.mark.parametrize("family", TRANSFORMERS)
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "diffusion_model."])
def test_a_transformer_has_the_weights_of_its_file_whoever_named_them(
    family: str, prefix: str, folders: Bases, tmp_path: Path
):
    path = write(their_transformer(folders, family), tmp_path / "base.safetensors", prefix)
    base = SingleFiles(folders[family], {"transformer": path})
    loaded = base.transformer("cpu", torch.float32)
    assert same(loaded, PipelineFolder(folders[family]).transformer("cpu", torch.float32))
    assert not loaded.training
    assert base.fingerprint("transformer") != PipelineFolder(folders[family]).fingerprint("transformer")
    assert base.fingerprint("autoencoder") == PipelineFolder(folders[family]).fingerprint("autoencoder")
    path.write_bytes(b"")  # weights that were views of the file would be gone, and the process with them
    assert same(loaded, PipelineFolder(folders[family]).transformer("cpu", torch.float32))


@pytest.mark.parametrize("family", TRANSFORMERS)
@pytest.mark.parametrize("kind", ["bf16", "fp8", "scale_weight", "weight_scale"])
def test_bf16_fp8_and_scaled_fp8_are_the_weights_up_to_their_rounding(
    family: str, kind: str, folders: Bases, tmp_path: Path
):
    weights = their_transformer(folders, family)
    stored = {"bf16": torch.bfloat16, "fp8": torch.float8_e4m3fn}.get(kind)
    weights = {n: w.to(stored) for n, w in weights.items()} if stored else scaled_fp8(weights, kind)
    path = write(weights, tmp_path / "base.safetensors")
    loaded = SingleFiles(folders[family], {"transformer": path}).transformer("cpu", torch.float32).state_dict()
    for name, weight in PipelineFolder(folders[family]).transformer("cpu", torch.float32).state_dict().items():
        # E4M3 has 3 bits after the point: half a step is 1/16 of a number, or 2**-10 where 2**-6 is the smallest
        smallest = 2**-9 if kind == "fp8" else float(weight.abs().max()) * 1e-3
        torch.testing.assert_close(loaded[name], weight, rtol=1 / 15, atol=smallest)


@pytest.mark.parametrize("family", ENCODERS)
def test_a_text_encoder_has_the_weights_of_its_file(family: str, folders: Bases, tmp_path: Path):
    flag, part = ("t5xxl", "text_encoder_2") if family == "flux.1" else ("text_encoder", "text_encoder")
    theirs = PipelineFolder(folders[family]).text_encoders("cpu", torch.float32)[part]

    def renamed(name: str) -> str:
        start = next((start for start in ENCODERS[family] if name.startswith(start)), None)
        return name if start is None else ENCODERS[family][start] + name.removeprefix(start)

    weights = {renamed(name): weight for name, weight in theirs.named_parameters() if not name.startswith("lm_head")}
    if family == "flux.1":
        weights["spiece_model"] = torch.zeros(9, dtype=torch.uint8)  # ComfyUI's T5 brings its vocabulary
    path = write(scaled_fp8(weights), tmp_path / "encoder.safetensors")
    loaded = SingleFiles(folders[family], {flag: path}).text_encoders("cpu", torch.float32)[part]
    for name, weight in theirs.state_dict().items():
        if not name.startswith("lm_head"):  # no prompt reaches it
            torch.testing.assert_close(
                loaded.state_dict()[name], weight, rtol=1 / 15, atol=float(weight.abs().max()) * 1e-3
            )


@pytest.mark.parametrize("family", ["z-image", "flux.2-klein"])
def test_an_autoencoder_has_the_weights_of_its_file(family: str, folders: Bases, tmp_path: Path):
    vae = PipelineFolder(folders[family]).autoencoder("cpu", torch.float32)
    for prefix in ("", "first_stage_model."):
        path = write(as_they_name(vae.state_dict(), LDM), tmp_path / "ae.safetensors", prefix)
        assert same(SingleFiles(folders[family], {"vae": path}).autoencoder("cpu", torch.float32), vae)


def test_one_file_may_hold_all_parts(folders: Bases, tmp_path: Path):
    base, file = PipelineFolder(folders["z-image"]), tmp_path / "all.safetensors"
    parts = {
        "model.diffusion_model.": their_transformer(folders, "z-image"),
        "vae.": as_they_name(base.autoencoder("cpu", torch.float32).state_dict(), LDM),
        "text_encoders.qwen3_4b.transformer.model.": dict(
            base.text_encoders("cpu", torch.float32)["text_encoder"].named_parameters()
        ),
    }
    write({prefix + name: weight for prefix, part in parts.items() for name, weight in part.items()}, file)
    single = SingleFiles(folders["z-image"], dict.fromkeys(("transformer", "vae", "text_encoder"), file))
    assert single.weights_bytes() == base.weights_bytes()
    assert single.missing() == []
    for part in ("transformer", "autoencoder"):
        assert same(getattr(single, part)("cpu", torch.float32), getattr(base, part)("cpu", torch.float32))
    texts = [parts.text_encoders("cpu", torch.float32)["text_encoder"] for parts in (single, base)]
    assert same(*texts)


def test_flux_1s_file_of_the_full_size_fits_its_settings():
    """All names and shapes of FLUX.1-dev as Black Forest Labs published it, without a number in them."""
    from diffusers import FluxTransformer2DModel

    theirs = {name: torch.empty(shape, device="meta") for name, shape in RECORDED["bfl"]["keys"].items()}
    model = filled(FluxTransformer2DModel, BASES["flux-dev"].config, dict(theirs), Path("flux1-dev.safetensors"))
    assert {name: list(weight.shape) for name, weight in model.state_dict().items()} == RECORDED["diffusers"]["keys"]
    again = as_they_name(model.state_dict(), BFL)
    assert {name: list(weight.shape) for name, weight in again.items()} == RECORDED["bfl"]["keys"]
    fill = theirs | {"img_in.weight": torch.empty((3072, 384), device="meta")}
    with pytest.raises(UserError, match=r"flux1-fill.*x_embedder.weight is \[3072, 384\], not \[3072, 64\]"):
        filled(FluxTransformer2DModel, BASES["flux-dev"].config, fill, Path("flux1-fill.safetensors"))


def test_flux_1s_weights_are_in_their_places():
    """One block of each kind of FLUX.1-dev, one column wide: only names and rows count."""
    from diffusers.loaders.single_file_utils import convert_flux_transformer_checkpoint_to_diffusers

    recorded = RECORDED["diffusers"]["keys"].items()
    sizes = {name: size for name, size in recorded if "blocks." not in name or "blocks.0." in name}
    ours = {name: torch.randn(size[0], *[1 for _ in size[1:]]) for name, size in sizes.items()}
    again = convert_flux_transformer_checkpoint_to_diffusers(as_they_name(ours, BFL))
    assert again.keys() == ours.keys()
    assert not [name for name in ours if not torch.equal(again[name], ours[name])]


def test_single_files_without_a_name_are_flux_1s_dev_or_schnell(tmp_path: Path):
    path = write({"guidance_in.in_layer.weight": torch.zeros(1)}, tmp_path / "dev.safetensors")
    assert flux_of({"transformer": path}) == "flux-dev"
    path = write({"img_in.weight": torch.zeros(1)}, tmp_path / "schnell.safetensors")
    assert flux_of({"transformer": path}) == "flux-schnell"
    parts = find_parts("flux-schnell", {"transformer": path})
    assert parts.architecture.name == "flux.1-schnell"
    assert parts.scheduler_config["shift"] == 1.0


def without(name: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda weights: {key: weight for key, weight in weights.items() if key != name}


SPOILT = {
    "missing": (without("layers.0.ffn_norm1.weight"), r"1 weights are missing \(layers\.0\.ffn_norm1\.weight\)"),
    "fused": (without("layers.0.attention.qkv.weight"), r"3 weights are missing \(layers\.0\.attention\.to_k"),
    "strange": (lambda w: w | {"layers.9.more": torch.zeros(3)}, r"1 weights are not known \(layers\.9\.more\)"),
    "shape": (lambda w: w | {"x_embedder.bias": torch.zeros(3)}, r"x_embedder\.2-1\.bias is \[3\], not \[64\]"),
    "int8": (
        lambda w: w | {"layers.0.attention.out.weight": torch.zeros(64, 64, dtype=torch.int8)},
        r"layers\.0\.attention\.out\.weight as I8, which only ComfyUI reads",
    ),
    "block-scaled": (
        lambda w: w | {"layers.0.attention.out.weight_scale": torch.ones(64, 2)},
        r"one scale for each block of F32 numbers, which only ComfyUI reads",
    ),
}


@pytest.mark.parametrize("how", SPOILT)
def test_all_that_is_wrong_with_a_file_is_said(how: str, folders: Bases, tmp_path: Path):
    spoil, sentence = SPOILT[how]
    path = write(spoil(their_transformer(folders, "z-image")), tmp_path / "base.safetensors")
    with pytest.raises(UserError, match=sentence):
        SingleFiles(folders["z-image"], {"transformer": path}).transformer("cpu", torch.float32)


def test_the_file_of_another_base_or_part_is_told(folders: Bases, tmp_path: Path):
    klein = write(their_transformer(folders, "flux.2-klein"), tmp_path / "klein.safetensors")
    with pytest.raises(UserError, match=r"klein\.safetensors does not fit this base's ZImage.*of another model"):
        SingleFiles(folders["z-image"], {"transformer": klein}).transformer("cpu", torch.float32)
    encoder = PipelineFolder(folders["flux.2-klein"]).text_encoders("cpu", torch.float32)["text_encoder"]
    text = write(dict(encoder.named_parameters()), tmp_path / "qwen.safetensors")
    for parts in ({"text_encoder": text}, {"text_encoder": klein}):
        with pytest.raises(UserError, match=r"does not fit this base's Qwen3Model"):
            SingleFiles(folders["z-image"], parts).text_encoders("cpu", torch.float32)
    with pytest.raises(UserError, match=r"text does not fit|does not fit"):
        SingleFiles(folders["z-image"], {"vae": text}).autoencoder("cpu", torch.float32)
    with pytest.raises(UserError, match=r"--clip-l: z-image has no such part; its files are.*--text-encoder"):
        SingleFiles(folders["z-image"], {"clip_l": text}).text_encoders("cpu", torch.float32)


def test_files_that_are_absent_cut_or_no_weights_are_told(folders: Bases, tmp_path: Path):
    nowhere = {"vae": tmp_path / "ae.safetensors", "transformer": tmp_path / "z.safetensors"}
    both = (
        r"ae\.safetensors does not exist: --vae is a file that lies in ComfyUI's models/vae.* --transformer is a file"
    )
    with pytest.raises(UserError, match=both):  # and nothing is asked of the hub
        SingleFiles("Tongyi-MAI/Z-Image", nowhere)
    whole = write(their_transformer(folders, "z-image"), tmp_path / "cut.safetensors")
    whole.write_bytes(whole.read_bytes()[:-1000])
    with pytest.raises(
        UserError, match=r"cut\.safetensors is not a safetensors file, or not a whole one.*copy it again"
    ):
        SingleFiles(folders["z-image"], {"transformer": whole}).transformer("cpu", torch.float32)
    (tmp_path / "text").write_text("no weights at all")
    with pytest.raises(UserError, match="not a safetensors file"):
        SingleFiles(folders["z-image"], {"transformer": tmp_path / "text"}).transformer("cpu", torch.float32)
