"""The shipped workflows in a running ComfyUI: nothing is refused, the demo and what else runs on a small base runs."""

import json
import urllib.request
from pathlib import Path

import pytest
from comfyui import ROOT, needs_comfyui
from comfyui_server import Server, serving
from graphs import COMPARISON, FOREIGN, NEWEST, RECORDS, WORKFLOWS, first_version, opened, schemas_for, to_api
from record_nodes import FILES, LOCALE, Schemas, recorded_core, translatable
from safetensors.torch import load_file

from metalora.backbones.pipeline_folder import MINIATURE

pytestmark = needs_comfyui
SMALL_BASE = "miniature" if MINIATURE.is_dir() else "tiny (random weights)"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("workflows") / "base") as running:
        yield running


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


def test_the_demo_runs_through_the_api(server: Server):
    graph = to_api(opened(ROOT / "workflows" / "1_Miniature_demo.json"), server.get("/object_info"))
    kinds = {node["class_type"]: node["inputs"] for node in graph.values()}
    kinds["MetaLoRA_LoadMiniature"]["network"] = SMALL_BASE
    kinds["MetaLoRA_TrainPersonalization"]["steps"] = 4
    kinds["MetaLoRA_AugmentFaceCrops"]["resolution"] = 64
    for node in graph.values():
        if node["class_type"] == "KSampler":
            node["inputs"]["steps"] = 2
    shown = server.run(graph)
    assert sum("images" in output for output in shown.values()) == 5
    output = server.base / "output"
    assert (output / "loras" / "demo_00001_.safetensors").is_file()
    assert list((output / "meta_lora").glob("demo_*_.results.json"))
    assert "lora key not loaded" not in server.log


def on_the_small_base(server: Server, name: str) -> dict:
    """A shipped graph for the API, its core loaders replaced by one of the demo's base."""
    graph = to_api(opened(ROOT / "workflows" / f"{name}.json"), server.get("/object_info"))
    slots = {"UNETLoader": 0, "DualCLIPLoader": 1, "VAELoader": 2}
    replaced = {key: slots[node["class_type"]] for key, node in graph.items() if node["class_type"] in slots}
    graph = {key: node for key, node in graph.items() if key not in replaced}
    graph["small"] = {"class_type": "MetaLoRA_LoadMiniature", "inputs": {"network": SMALL_BASE}}
    for node in graph.values():
        for entry, value in node["inputs"].items():
            if isinstance(value, list) and value[0] in replaced:
                node["inputs"][entry] = ["small", replaced[value[0]]]
    return graph


def test_personalize_learns_the_photo_that_it_opens_with(server: Server):
    graph = on_the_small_base(server, "2_Personalize_FLUX.1-dev")
    small = {"steps": 2, "resolution": 64, "width": 128, "height": 128}
    for node in graph.values():
        node["inputs"] |= {entry: value for entry, value in small.items() if entry in node["inputs"]}
    shown = server.run(graph)
    assert sum("images" in output for output in shown.values()) == 3  # crops, loss, image
    assert (server.base / "output" / "loras" / "person_00001_.safetensors").is_file()


def test_two_people_each_wear_their_own_lora_on_their_own_half(server: Server):
    """The shipped graph on the demo's base, with the demo's LoRA on the left and nothing on the right."""
    graph = on_the_small_base(server, "4_Two_people_in_one_picture")
    strengths = iter((1.0, 0.0))
    for node in graph.values():
        inputs = node["inputs"]
        sizes = {"width": 128 if inputs.get("width") == 1024 else 64, "height": 128}
        inputs |= {name: size for name, size in sizes.items() if name in inputs}
        if node["class_type"] == "MaskComposite":
            inputs["x"] //= 8
        if node["class_type"] == "CreateHookLoraModelOnly":
            inputs |= {"lora_name": "demo_00001_.safetensors", "strength_model": next(strengths)}
        if node["class_type"] == "KSampler":
            inputs["steps"] = 1
    sampler = next(key for key, node in graph.items() if node["class_type"] == "KSampler")
    graph = {key: node for key, node in graph.items() if node["class_type"] not in ("VAEDecode", "SaveImage")}
    graph["save"] = {"class_type": "SaveLatent", "inputs": {"samples": [sampler, 0], "filename_prefix": "two"}}
    latents = []
    for strength in (1.0, 0.0):
        worn = [node["inputs"] for node in graph.values() if node["inputs"].get("strength_model") == 1.0]
        for inputs in worn:
            inputs["strength_model"] = strength
        server.run(graph)
        latents.append(load_file(sorted((server.base / "output").glob("two_*.latent"))[-1])["latent_tensor"])
    change = (latents[0] - latents[1]).abs().mean(dim=(0, 1, 2))  # by column
    assert change[:8].min() > 1e-3
    assert change[8:].max() < 1e-5  # rounding: a hook of strength 0 is still a hook
