"""The pack in a running ComfyUI: a graph through the HTTP API becomes images, a LoRA, a plot; Cancel keeps work."""

import json
import random
import shutil
import time

import numpy as np
from comfyui import ROOT, needs_comfyui
from comfyui_server import Graph, Server, node, training
from PIL import Image

from metalora.store import files

pytestmark = needs_comfyui
PORTRAITS = ROOT / "metalora" / "data" / "portraits"


def sampled(model: list, prefix: str, start: int) -> Graph:
    """Five more nodes that make an image with a MODEL."""
    text, latent, made, decoded = (str(start + i) for i in range(4))
    settings = {"seed": 0, "steps": 4, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
    wires = {"positive": [text, 0], "negative": [text, 0], "latent_image": [latent, 0]}
    return {
        text: node("CLIPTextEncode", clip=["1", 1], text="a photo of a woman"),
        latent: node("EmptySD3LatentImage", width=64, height=64, batch_size=1),
        made: node("KSampler", model=model, **wires, **settings),
        decoded: node("VAEDecode", samples=[made, 0], vae=["1", 2]),
        prefix: node("SaveImage", images=[decoded, 0], filename_prefix=prefix),
    }


def pixels(server: Server, shown: dict) -> np.ndarray:
    return np.asarray(Image.open(server.image(shown)).convert("RGB")).astype(int)


def saver_of_loras(server: Server) -> str:
    """The core's node, which newer versions call by another name."""
    return next(name for name in ("SaveLoRA", "SaveLoRANode") if name in server.get("/object_info"))


def test_a_graph_becomes_images_a_lora_and_a_plot_and_the_stock_loader_gives_the_live_adapters_image(server):
    graph = training() | sampled(["1", 0], "base", 10) | sampled(["5", 2], "live", 20)
    graph["loss"] = node("PreviewImage", images=["5", 4])
    graph["sheet"] = node("PreviewImage", images=["3", 1])
    graph["graph"] = node("LossGraphNode", loss=["5", 3], filename_prefix="loss")
    graph["core"] = node(saver_of_loras(server), lora=["5", 1], prefix="loras/core")
    shown = server.run(graph)
    assert server.image(shown["loss"]).is_file()
    assert server.image(shown["sheet"]).is_file()
    lora = server.base / "output" / "loras" / "ada_00001_.safetensors"
    assert files.read(lora, ("lora",))[1]["rank"] == "1"
    assert (server.base / "output" / "loras" / "core_00001_.safetensors").is_file()

    loaders = {
        "stock": node("LoraLoaderModelOnly", model=["1", 0], lora_name=lora.name, strength_model=1.0),
        "saved": node("LoraLoaderModelOnly", model=["1", 0], lora_name="core_00001_.safetensors", strength_model=1.0),
    }
    for start, (name, loader) in zip((30, 40), loaders.items(), strict=True):
        again = {"1": graph["1"], f"{name}-loader": loader} | sampled([f"{name}-loader", 0], name, start)
        shown |= server.run(again)
    live, base = pixels(server, shown["live"]), pixels(server, shown["base"])
    assert np.abs(live - base).max() > 8, "the adapter does nothing"
    for name in loaders:
        apart = np.abs(pixels(server, shown[name]) - live)
        print(f"{name}: worst difference {apart.max()} of 255, {(apart > 0).mean():.3%} of values differ")
        assert apart.max() <= 1, name  # rounding
    assert "lora key not loaded" not in server.log
    assert "NOT LOADED" not in server.log


def test_photos_of_a_folder_are_trained_with_the_captions_beside_them_and_the_adapter_is_trained_on(server):
    folder, made = server.base / "input" / "ada", server.base / "output" / "meta_lora"
    folder.mkdir()
    for index in (1, 2):
        shutil.copy(PORTRAITS / f"woman-{index}.jpg", folder)
    (folder / "woman-2.txt").write_text("a {class} outdoors")
    graph = training(steps=2, seed=31, name="several")
    graph["2"] = node("MetaLoRA_LoadPhotos", photos_folder="ada")
    graph["3"]["inputs"] |= {"photo": ["2", 0], "caption": ["2", 1]}
    graph["5"]["inputs"]["captions"] = ["3", 4]
    server.run(graph)
    (path,) = made.glob("several_*.adapter.safetensors")
    captions = json.loads(files.read(path, ("adapter",))[1]["captions"])
    assert set(captions) == {"", "a woman outdoors"}

    graph["load"] = node("MetaLoRA_LoadAdapter", file=path.name)
    graph["5"]["inputs"] |= {"adapter": ["load", 0], "name": "further"}
    del graph["5"]["inputs"]["meta_down"], graph["4"]
    server.run(graph)
    (further,) = made.glob("further_*.adapter.safetensors")
    assert files.read(further, ("adapter",))[1]["continues"] == files.digest_of_tensors(
        files.read(path, ("adapter",))[0]
    )


def test_the_same_prompt_again_trains_nothing_again(server):
    prompt = server.queue(training(seed=3))
    server.wait(prompt)
    again = server.wait(server.queue(training(seed=3)))
    cached = next(content["nodes"] for kind, content in again["status"]["messages"] if kind == "execution_cached")
    assert "5" in cached


def test_cancel_keeps_what_was_learned_and_the_next_prompt_goes_on_from_there(server):
    graph = training(steps=4000, seed=7)
    states = server.base / "output" / "meta_lora" / "unfinished"
    before, prompt = set(states.glob("*")), server.queue(graph)
    while "step 25 of 4000" not in server.log:
        time.sleep(0.1)
    time.sleep(random.uniform(0, 1))
    server.post("/interrupt", {})
    history = server.wait(prompt)
    assert any(kind == "execution_interrupted" for kind, _ in history["status"]["messages"])
    (state,) = set(states.iterdir()) - before
    steps = len(files.read(state, ("state",))[0]["losses"])
    assert 0 < steps < 4000

    server.run(training(steps=steps + 5, seed=7))
    assert f"going on from step {steps}" in server.log
    assert not state.exists(), "a finished run needs no state"


def test_what_the_user_can_mend_is_a_sentence(server):
    graph = training()
    graph["3"]["inputs"]["ratios"] = "16/9"
    assert "shapes look like 16:9" in server.refused(graph)

    graph = training()
    graph["3"]["inputs"] |= {"resolution": 1024, "max_upscale": 1.0}
    assert "ower resolution" in server.refused(graph), "the widget's name, not the flag's"
