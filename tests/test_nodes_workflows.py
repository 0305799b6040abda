"""The shipped workflows in a running ComfyUI: nothing is refused, the demo and what else runs on a small base runs."""

import json
import shutil
import urllib.request
from pathlib import Path

import pytest
from comfyui import ROOT, needs_comfyui
from comfyui_server import TINY, Server, node, training
from graphs import COMPARISON, FOREIGN, NEWEST, RECORDS, WORKFLOWS, first_version, opened, schemas_for, to_api
from record_nodes import FILES, LOCALE, Schemas, recorded_core, translatable
from safetensors.torch import load_file

from metalora.store import files

pytestmark = needs_comfyui
PHOTOS = ROOT / "metalora" / "data"
SLOTS = {"UNETLoader": 0, "DualCLIPLoader": 1, "VAELoader": 2}  # of the core's loaders, as Load Miniature FLUX has them


def test_the_recorded_schemas_are_those_of_the_real_comfyui(server: Server):
    info, version = server.get("/object_info"), server.version
    if version not in RECORDS:
        pytest.skip(f"ComfyUI {version} was not recorded: python tests/record_nodes.py ADDRESS")
    again = "run: python tests/record_nodes.py ADDRESS"
    assert recorded_core(info) == RECORDS[version], again
    assert json.loads(LOCALE.read_text(encoding="utf-8")) == translatable(info), again


def test_the_page_is_given_the_help_and_the_workflows(server: Server):
    with urllib.request.urlopen(f"{server.address}/extensions/metalora/docs/MetaLoRA_Evaluate.md", timeout=60) as page:
        assert b"# R-FaceSim Evaluate" in page.read()
    assert "1_Miniature_demo" in server.get("/workflow_templates")["metalora"]
    assert "MetaLoRA_Evaluate" in server.get("/i18n")["en"]["nodeDefs"]
    if server.version == NEWEST:
        blueprints = [one for one in server.get("/global_subgraphs").values() if one["source"] == "custom_node"]
        assert [one["name"] for one in blueprints] == ["Photo to person LoRA"]


def of_known_nodes(graph: dict, info: Schemas) -> dict:
    """What is left of a graph when nodes that this ComfyUI lacks are deleted, and all that hangs on them."""
    while lost := {
        key
        for key, node in graph.items()
        if node["class_type"] not in info
        or any(isinstance(value, list) and value[0] not in graph for value in node["inputs"].values())
    }:
        graph = {key: node for key, node in graph.items() if key not in lost}
    return graph


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_the_real_server_finds_nothing_wrong_but_files_that_are_not_here(server: Server, path: Path):
    info = server.get("/object_info")
    if first_version(path) == NEWEST != server.version:
        pytest.skip("asks for a newer ComfyUI")
    graph = to_api(opened(path), schemas_for(first_version(path)))
    missing = {node["class_type"] for node in graph.values()} - info.keys()
    assert missing == (FOREIGN.keys() if path == COMPARISON else set())
    body = json.dumps({"prompt": of_known_nodes(graph, info)}).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(server.address + "/prompt", body), timeout=60) as answer:
            server.post("/interrupt", {})
            server.wait(json.load(answer)["prompt_id"])
    except urllib.error.HTTPError as error:
        for node in json.loads(error.read())["node_errors"].values():
            for problem in node["errors"]:
                asked = problem.get("extra_info", {}).get("input_name")
                assert asked in FILES.split(), problem
                assert problem["type"] in ("value_not_in_list", "custom_validation_failed"), problem


def shipped(server: Server, start: str, **small: object) -> dict:
    """A shipped graph for the API with Load Miniature FLUX in place of the core's loaders, and small settings."""
    (path,) = (path for path in WORKFLOWS if path.stem.startswith(start))
    graph = to_api(opened(path), server.get("/object_info"))
    replaced = {key: SLOTS[one["class_type"]] for key, one in graph.items() if one["class_type"] in SLOTS}
    graph = {key: one for key, one in graph.items() if key not in replaced}
    graph |= {"small": node("MetaLoRA_LoadMiniature", network="miniature")} if replaced else {}
    for inputs in (one["inputs"] for one in graph.values()):
        wires = {name: value for name, value in inputs.items() if isinstance(value, list)}
        inputs |= {name: ["small", replaced[key]] for name, (key, _) in wires.items() if key in replaced}
        inputs |= {name: value for name, value in small.items() if name in inputs.keys() - wires.keys()}
    return graph


@pytest.fixture(scope="session")
def demo(server: Server) -> dict:
    """What the demo showed; its LoRA is demo_00001_."""
    return server.run(shipped(server, "1_", steps=4, resolution=64))


def test_the_demo_runs(server: Server, demo: dict):
    assert sum("images" in output for output in demo.values()) == 5
    assert (server.base / "output" / "loras" / "demo_00001_.safetensors").is_file()
    assert list((server.base / "output" / "meta_lora").glob("demo_*_.results.json"))
    assert "lora key not loaded" not in server.log


def test_personalize_learns_the_photo_that_it_opens_with(server: Server):
    shown = server.run(shipped(server, "2_Personalize_FLUX.1", steps=2, resolution=64, width=128, height=128))
    assert sum("images" in output for output in shown.values()) == 3  # crops, loss, image
    assert (server.base / "output" / "loras" / "person_00001_.safetensors").is_file()


def test_images_of_a_folder_are_scored(server: Server):
    for index, folder in enumerate(("", "generated", "held-out"), 1):
        (server.base / "input" / folder).mkdir(exist_ok=True)
        shutil.copy(PHOTOS / "portraits" / f"woman-{index}.jpg", server.base / "input" / folder)
    shown = server.run(shipped(server, "3_", image="woman-1.jpg"))
    assert any("R-FaceSim" in output.get("text", [""])[0] for output in shown.values())
    assert sum("images" in output for output in shown.values()) == 2  # the page and the plot
    results = json.loads((server.base / "output/meta_lora/evaluation_00001_.results.json").read_text())
    assert results["summary"]["images"] == 1
    assert -1 <= results["images"][0]["held_out"] <= 1


def test_two_people_each_wear_their_own_lora_on_their_own_half(server: Server, demo: dict):
    """The shipped graph on the demo's base, with the demo's LoRA on the left and nothing on the right."""
    graph = shipped(server, "4_", steps=1)
    strengths = iter((1.0, 0.0))
    for one in graph.values():
        inputs = one["inputs"]
        sizes = {"width": 128 if inputs.get("width") == 1024 else 64, "height": 128}
        inputs |= {name: size for name, size in sizes.items() if name in inputs}
        if one["class_type"] == "MaskComposite":
            inputs["x"] //= 8
        if one["class_type"] == "CreateHookLoraModelOnly":
            inputs |= {"lora_name": "demo_00001_.safetensors", "strength_model": next(strengths)}
    sampler = next(key for key, one in graph.items() if one["class_type"] == "KSampler")
    graph = {key: one for key, one in graph.items() if one["class_type"] not in ("VAEDecode", "SaveImage")}
    graph["save"] = node("SaveLatent", samples=[sampler, 0], filename_prefix="two")
    latents = []
    for strength in (1.0, 0.0):
        worn = [one["inputs"] for one in graph.values() if one["inputs"].get("strength_model") == 1.0]
        for inputs in worn:
            inputs["strength_model"] = strength
        server.run(graph)
        latents.append(load_file(sorted((server.base / "output").glob("two_*.latent"))[-1])["latent_tensor"])
    change = (latents[0] - latents[1]).abs().mean(dim=(0, 1, 2))  # by column
    assert change[:8].min() > 1e-3
    assert change[8:].max() < 1e-5  # rounding: a hook of strength 0 is still a hook


def test_a_benchmark_is_planned_run_and_reported(server: Server):
    small = {"methods": "none, meta-lora", "prompts_each": 1, "steps": 2, "resolution": 64, "sampling_steps": 2}
    shown = server.run(shipped(server, "5_", name="small", **small))
    folder = server.base / "output" / "meta_lora" / "benchmarks" / "small"
    assert json.loads((folder / "results.json").read_text())
    assert (folder / "report.html").stat().st_size > 10_000
    assert sum("images" in output for output in shown.values()) == 1


def test_a_meta_down_is_trained_and_used(server: Server):
    for photo in sorted((PHOTOS / "mini_benchmark" / "photos").glob("30000[0-3]-[0-2].jpg")):
        person, _, number = photo.name.partition("-")
        (server.base / "input" / "people" / person).mkdir(parents=True, exist_ok=True)
        shutil.copy(photo, server.base / "input" / "people" / person / number)
    small = {"steps": 6, "bucket_steps": 3, "batch": 2, "resolution": 64, "validation_people": 2, "preset": "miniature"}
    graph = shipped(server, "6_", network=TINY, preview="images", preview_every=3, **small)
    graph["small"]["inputs"]["network"] = TINY
    shown = server.run(graph)
    assert sum("images" in output for output in shown.values()) == 1
    made = server.base / "output" / "meta_lora" / "meta_downs" / "people.safetensors"
    assert files.read(made, ("meta-down",))[1]["people"] == "2"

    second = training(steps=2, seed=21)
    second["4"]["inputs"]["file"], second["6"]["inputs"]["name"] = "people.safetensors", "second"
    server.run(second)
    trained = next(one["inputs"] for one in graph.values() if one["class_type"] == "MetaLoRA_MetaTrain")
    trained["seed"] = 1
    assert "exists already: use it through Load Meta-Down" in server.refused(graph)
