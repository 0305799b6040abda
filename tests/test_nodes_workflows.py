"""The shipped workflows against the nodes' schemas: recorded ones everywhere, the real ones where ComfyUI is."""

import json
import re
import urllib.request
from pathlib import Path

import pytest
from comfyui import ROOT, needs_comfyui
from comfyui_server import Server, serving
from graphs import PAGE_ONLY, to_api
from record_nodes import FILES, LOCALE, OURS, recorded_core, translatable
from safetensors.torch import load_file

from metalora.backbones.pipeline_folder import MINIATURE
from tools.workflows.blueprint import photo_to_lora
from tools.workflows.graph import READABLE, VIEW, Schemas, inputs_of, is_widget, outputs_of
from tools.workflows.graphs import GRAPHS, first_version
from tools.workflows.schemas import FOREIGN, NEWEST, OLDEST, RECORDS, schemas_for
from tools.workflows.thumbnail import thumbnail

SCHEMAS = RECORDS[OLDEST]
WORKFLOWS = sorted((ROOT / "workflows").glob("*.json"))
PAIRS = [
    (path, version)
    for path in WORKFLOWS
    for version in (OLDEST, NEWEST)
    if first_version(path.stem) in (OLDEST, version)
]
SMALL_BASE = "miniature" if MINIATURE.is_dir() else "tiny (random weights)"


def opened(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def named(value: object) -> str:
    return value.stem if isinstance(value, Path) else str(value)


@pytest.mark.parametrize(("path", "version"), PAIRS, ids=named)
def test_every_node_and_value_of_a_workflow_exists_and_fits(path: Path, version: str):
    schemas = schemas_for(version)
    for node in to_api(opened(path), schemas).values():
        for name, kind, options in inputs_of(schemas, node["class_type"]):
            value = node["inputs"].get(name)
            where = f"{node['class_type']}.{name} = {value!r}"
            optional = name in schemas[node["class_type"]]["input"].get("optional", {})
            assert value is not None or optional, where
            if not is_widget(kind, options) or isinstance(value, list):
                continue
            if kind == "COMBO" and options.get("options") and name not in FILES.split():
                assert value in options["options"], where
            if kind in ("INT", "FLOAT"):
                assert options.get("min", value) <= value <= options.get("max", value), where


@pytest.mark.parametrize(("path", "version"), PAIRS, ids=named)
def test_every_wire_joins_sockets_of_one_type(path: Path, version: str):
    workflow, schemas = opened(path), schemas_for(version)
    nodes = {node["id"]: node for node in workflow["nodes"]}
    for number, source, slot, target, entry, kind in workflow["links"]:
        output, wanted = nodes[source]["outputs"][slot], nodes[target]["inputs"][entry]
        assert wanted["link"] == number
        assert number in output["links"]
        assert kind == "*" or output["type"] == wanted["type"] == kind, (nodes[source]["type"], output, wanted)
        assert output["name"] == outputs_of(schemas, nodes[source]["type"])[slot]


def test_the_comparison_has_every_other_method_and_judges_each_with_the_same_node():
    workflow = opened(ROOT / "workflows" / "7_Compare_with_other_methods.json")
    kinds = [node["type"] for node in workflow["nodes"]]
    assert set(FOREIGN) <= set(kinds)
    assert {"PhotoMakerEncode", "ReferenceLatent", "MetaLoRA_TrainPersonalization"} <= set(kinds)
    assert kinds.count("MetaLoRA_Evaluate") == kinds.count("VAEDecode") == 4
    notes = next(node["widgets_values"][0] for node in workflow["nodes"] if node["type"] == "MarkdownNote")
    assert all(node["pack"].rsplit("/", 1)[-1] in notes for node in FOREIGN.values()), "a note says what to install"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_is_tidy_has_words_and_a_thumbnail(path: Path):
    workflow = opened(path)
    boxes = [(*node["pos"], *node["size"]) for node in workflow["nodes"]]
    for i, (x, y, width, height) in enumerate(boxes):
        for other_x, other_y, other_width, other_height in boxes[:i]:
            apart = x >= other_x + other_width or other_x >= x + width or y >= other_y + other_height
            assert apart or other_y >= y + height, "two nodes lie on each other"
    if not path.stem.startswith("7_"):  # the newer page fits a template into three quarters of its width and height
        ends = [max(box[axis] + box[axis + 2] for box in boxes) + margin for axis, margin in ((0, 20), (1, 50))]
        assert min(0.75 * VIEW[0] / ends[0], 0.75 * VIEW[1] / ends[1]) > READABLE
    assert any(node["type"] in PAGE_ONLY for node in workflow["nodes"]), "a workflow explains itself"
    assert path.with_suffix(".jpg").stat().st_size < 100_000


def test_a_link_in_the_guides_opens_a_workflow_that_ships():
    """Of a template's name ComfyUI 0.30's page takes only these letters."""
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+", name) for name in GRAPHS)
    for guide in ("README.md", "docs/nodes.md", "workflows/README.md"):
        text = (ROOT / guide).read_text(encoding="utf-8")
        links = re.findall(r"http://127\.0\.0\.1:8188/\?template=([^&]+)&source=metalora[>`]", text)
        assert links, guide
        assert set(links) <= GRAPHS.keys()


@pytest.mark.parametrize("name", GRAPHS)
def test_a_workflow_is_what_its_code_says(name: str):
    graph = GRAPHS[name](schemas_for(first_version(name))).as_file()
    again = "run: python -m tools.workflows.write"
    assert opened(ROOT / "workflows" / f"{name}.json") == json.loads(json.dumps(graph)), again
    assert thumbnail(name)


def test_the_blueprint_is_what_its_code_says_and_has_four_inputs_and_every_wire_at_its_socket():
    """One of `links` leads from an output to an input of the same type, both known to the schemas."""
    schemas, path = schemas_for(NEWEST), ROOT / "subgraphs" / "Photo to person LoRA.json"
    assert opened(path) == json.loads(json.dumps(photo_to_lora(schemas))), "run: python -m tools.workflows.write"
    (node,), (subgraph,) = opened(path)["nodes"], opened(path)["definitions"]["subgraphs"]
    assert node["type"] == subgraph["id"]
    assert [entry["name"] for entry in node["inputs"] if "widget" not in entry] == ["model", "clip", "vae", "photo"]
    inner = {one["id"]: one for one in subgraph["nodes"]}
    for link in subgraph["links"]:
        source = subgraph["inputs"] if link["origin_id"] == -10 else inner[link["origin_id"]]["outputs"]
        target = subgraph["outputs"] if link["target_id"] == -20 else inner[link["target_id"]]["inputs"]
        start, end = source[link["origin_slot"]], target[link["target_slot"]]
        assert start["type"] == end["type"] == link["type"]
        assert link["id"] in (start["linkIds"] if link["origin_id"] == -10 else start["links"])
        assert end.get("link", link["id"]) == link["id"]
        if link["target_id"] != -20:
            assert end["name"] in [name for name, *_ in inputs_of(schemas, inner[link["target_id"]]["type"])]
    for number, widget in node["properties"]["proxyWidgets"]:
        kind = "MetaLoRA_MergeToLora" if number == "-1" else inner[int(number)]["type"]
        assert widget in [name for name, *_ in inputs_of(schemas, kind)]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("workflows") / "base") as running:
        yield running


@needs_comfyui
def test_the_recorded_schemas_are_those_of_the_real_comfyui(server: Server):
    info, version = server.get("/object_info"), server.get("/system_stats")["system"]["comfyui_version"]
    if version not in RECORDS:
        pytest.skip(f"ComfyUI {version} was not recorded: python tests/record_nodes.py ADDRESS")
    again = "run: python tests/record_nodes.py ADDRESS"
    assert recorded_core(info) == RECORDS[version], again
    assert json.loads(LOCALE.read_text(encoding="utf-8")) == translatable(info), again


@pytest.mark.parametrize("kind", [kind for kind in SCHEMAS if kind.startswith(OURS)])
def test_every_node_has_help_that_names_each_input_and_output_and_a_tooltip_for_each(kind: str):
    page = (ROOT / "web" / "docs" / f"{kind}.md").read_text(encoding="utf-8")
    assert f"- nodes/{kind}.md" in (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), "the site is built strictly"
    rows = [
        cell.strip() for line in page.splitlines() if line.startswith("|") for cell in line.split("|")[1].split(",")
    ]
    names = [name for name, *_ in inputs_of(SCHEMAS, kind)] + outputs_of(SCHEMAS, kind)
    assert not [name for name in names if name not in rows], rows
    texts = json.loads(LOCALE.read_text(encoding="utf-8"))[kind]
    assert page.startswith(f"# {texts['display_name']}\n")
    assert texts["description"]
    assert all(entry["tooltip"] for part in ("inputs", "outputs") for entry in texts[part].values()), texts


@pytest.mark.parametrize("language", ["de", "fr", "ja", "zh"])
def test_a_translation_names_and_describes_every_node(language: str):
    texts = json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))
    english = json.loads(LOCALE.read_text(encoding="utf-8"))
    assert texts.keys() == english.keys()
    for kind, own in texts.items():
        assert own.keys() == {"display_name", "description"}
        assert all(own[key] and own[key] != english[kind][key] for key in own)


@needs_comfyui
def test_the_page_is_given_the_help_and_the_workflows(server: Server):
    with urllib.request.urlopen(f"{server.address}/extensions/metalora/docs/MetaLoRA_Evaluate.md", timeout=60) as page:
        assert b"# R-FaceSim Evaluate" in page.read()
    assert "1_Miniature_demo" in server.get("/workflow_templates")["metalora"]
    assert "MetaLoRA_Evaluate" in server.get("/i18n")["en"]["nodeDefs"]
    if server.get("/system_stats")["system"]["comfyui_version"] == NEWEST:
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


@needs_comfyui
@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_the_real_server_finds_nothing_wrong_but_files_that_are_not_here(server: Server, path: Path):
    info, version = server.get("/object_info"), server.get("/system_stats")["system"]["comfyui_version"]
    if first_version(path.stem) == NEWEST != version:
        pytest.skip("asks for a newer ComfyUI")
    graph = to_api(opened(path), schemas_for(first_version(path.stem)))
    missing = {node["class_type"] for node in graph.values()} - info.keys()
    assert missing == (FOREIGN.keys() if path.stem == "7_Compare_with_other_methods" else set())
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


@needs_comfyui
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


@needs_comfyui
def test_personalize_learns_the_photo_that_it_opens_with(server: Server):
    graph = on_the_small_base(server, "2_Personalize_FLUX.1-dev")
    small = {"steps": 2, "resolution": 64, "width": 128, "height": 128}
    for node in graph.values():
        node["inputs"] |= {entry: value for entry, value in small.items() if entry in node["inputs"]}
    shown = server.run(graph)
    assert sum("images" in output for output in shown.values()) == 3  # crops, loss, image
    assert (server.base / "output" / "loras" / "person_00001_.safetensors").is_file()


@needs_comfyui
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
