"""The whole making of the miniature in small: photos to autoencoder, FLUX, guidance, checks, export, and a backbone.

The photos are the shipped benchmark's, so that no renderer is needed; the networks are small and hardly trained.
"""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image

from metalora.backbones.pipeline import PipelineBackbone
from metalora.backbones.pipeline_folder import PipelineFolder
from metalora.config import GenerateConfig
from metalora.jobs import run
from metalora.jobs.generate import generate_images
from metalora.measure import load_faces
from metalora.store.cache import Cache
from tools.miniature import (
    check_autoencoder,
    check_flow,
    encode,
    export,
    flow_model,
    train_autoencoder,
    train_flow,
    train_guidance,
)
from tools.miniature.encode import find_faces, framed
from tools.miniature.photos import read_shards
from tools.miniature.text import T5_TOKENS

pytestmark = pytest.mark.slow

BENCHMARK = Path(__file__).parents[1] / "metalora" / "data" / "mini_benchmark"


def call(main, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["stage", *map(str, arguments)])
    main()


def write_shard(folder: Path, count: int) -> Path:
    """The benchmark's first photos as `render` would have written them."""
    rows = [json.loads(line) for line in (BENCHMARK / "manifest.jsonl").read_text().splitlines()][:count]
    pictures = [np.asarray(Image.open(io.BytesIO((BENCHMARK / row["path"]).read_bytes()))) for row in rows]
    captions = [json.dumps(row["attributes"]) for row in rows]
    folder.mkdir()
    np.savez(folder / "0.npz", photos=pictures, people=[row["number"] for row in rows], captions=captions)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every stage once, by its own command line."""
    root = tmp_path_factory.mktemp("miniature")
    photos = write_shard(root / "photos", 12)
    vae = root / "autoencoder" / "vae"
    on_cpu = ("--device", "cpu", "--threads", 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flow_model, "BATCH", 2)
        learn = ("--photos", photos, "--unseen", photos, "--steps", 2, *on_cpu)
        call(train_autoencoder.main, patch, *learn, "--out", vae.parent)
        check = ("--photos", photos, "--autoencoder", vae, "--out", root / "check_autoencoder.json")
        call(check_autoencoder.main, patch, *check)
        call(encode.main, patch, "--photos", photos, "--autoencoder", vae, "--out", root / "latents", "--device", "cpu")
        data = ("--latents", root / "latents", "--autoencoder", vae, "--steps", 2, "--batch", 2, *on_cpu)
        call(train_flow.main, patch, *data, "--out", root / "flow", "--double-blocks", 1, "--single-blocks", 1)
        weak = ("--weak", root / "flow" / "pipeline")
        call(train_guidance.main, patch, *data, *weak, "--flow", root / "flow", "--out", root / "guided")
        drawn = ("--images", 2, "--steps", 2, "--drawn", root / "drawn", "--out", root / "check_flow.json")
        pipeline = root / "guided" / "pipeline"
        call(check_flow.main, patch, "--pipeline", pipeline, "--photos", photos, "--device", "cpu", *drawn)
        call(export.main, patch, "--pipeline", pipeline, "--made", root, "--out", root / "shipped")
    return root


def test_what_ships_is_a_backbone(made, tmp_path):
    parts = PipelineFolder(made / "shipped")
    assert parts.missing() == []
    assert parts.max_tokens == T5_TOKENS
    backbone = PipelineBackbone(parts, torch.device("cpu"), torch.float32)
    small = GenerateConfig(width=64, height=64, sampling_steps=2)
    job = generate_images(backbone, ["a man"], tmp_path, small, lora=None, compare=False, cache=Cache(tmp_path))
    assert Image.open(run(job)[0].path).size == (64, 64)


def test_its_weights_are_stored_in_half_precision_and_the_card_gives_their_hashes(made):
    metadata = json.loads((made / "shipped" / "facts.json").read_text())
    card = (made / "shipped" / "README.md").read_text()
    assert set(metadata["trainings"]) == {"autoencoder", "flow", "guided"}
    for name, weights in metadata["weights"].items():
        trained = sum(path.stat().st_size for path in (made / "guided" / "pipeline" / name).glob("*.safetensors"))
        assert weights["sha256"] in card
        assert weights["bytes"] < 0.6 * trained
    assert metadata["trainings"]["flow"]["steps"] == 2
    texts = [path.read_text() for path in (made / "shipped").rglob("*") if path.suffix in (".json", ".md", ".txt")]
    assert not [text for text in texts if str(made) in text], "no place of this machine is named"
    drawn = np.load(made / "drawn" / "drawn.npz")
    assert drawn["photos"].shape == (2, 128, 128, 3)
    assert all({"kind", "clothes", "background"} <= set(json.loads(str(one))) for one in drawn["captions"])
    assert f"PSNR {metadata['checks']['check_autoencoder']['psnr_mean']:.2f} dB on 12 photos" in card


def test_crops_are_the_ones_personalization_makes(made):
    photos = read_shards(made / "photos")
    crops = framed(photos, find_faces(photos), 1, torch.Generator().manual_seed(0))
    sizes = {tuple(crop.pixels.shape[2:]) for crop in crops}
    assert sum(len(crop.attributes) for crop in crops) == len(photos)  # every face is found
    assert len(sizes) == len(crops) > 1
    assert all(height % 16 == width % 16 == 0 and 0.8 < height * width / 128**2 < 1.2 for height, width in sizes)
    detector, off = load_faces("sface"), []
    for crop in crops:
        for pixels, face in zip(crop.pixels, crop.faces, strict=True):
            seen = max(detector.find(pixels.float() / 255), key=lambda face: face.score).box
            off.append(max(abs(torch.tensor(seen) - face)) / max(pixels.shape))
    assert np.median(off) < 0.05  # of the crop's longer side: where the crop's face is said to be, there is one


def test_a_decoder_that_has_learned_on_ships_with_its_own_encoder_alone(made, tmp_path):
    newer, pipeline = AutoencoderKL.from_pretrained(made / "autoencoder" / "vae"), made / "guided" / "pipeline"
    torch.nn.init.ones_(newer.decoder.conv_in.weight)
    newer.save_pretrained(tmp_path / "newer")
    export.export(pipeline, tmp_path / "shipped", tmp_path / "newer")
    assert AutoencoderKL.from_pretrained(tmp_path / "shipped" / "vae").decoder.conv_in.weight.unique().tolist() == [1]
    torch.nn.init.ones_(newer.encoder.conv_in.weight)
    newer.save_pretrained(tmp_path / "other")
    with pytest.raises(SystemExit, match="another encoder"):
        export.export(pipeline, tmp_path / "shipped", tmp_path / "other")
