"""The files of workflows/ and subgraphs/ against the nodes' recorded schemas: what ComfyUI's page takes for granted.

They are edited and saved in ComfyUI. Each law holds for what is shipped, and for what the page writes of it.
"""

import json
import re
from graphlib import TopologicalSorter
from pathlib import Path

import numpy as np
import pytest
from graphs import (
    BLUEPRINT,
    COMPARISON,
    END,
    FOREIGN,
    NEWEST,
    OLDEST,
    PAGE_ONLY,
    READABLE,
    ROOT,
    WORKFLOWS,
    apart,
    default_of,
    first_version,
    inputs_of,
    opened,
    outputs_of,
    schemas_for,
    to_api,
    widgets_of,
)
from PIL import Image
from record_nodes import FILES, OURS

from metalora.backbones.bases import PRESETS
from metalora.settings import method_preset
from metalora.store.images import demo_portrait
from tools.thumbnails import TITLE, thumbnail

FILES_AND_VERSIONS = [
    (path, version)
    for path in (*WORKFLOWS, BLUEPRINT)
    for version in (OLDEST, NEWEST)
    if first_version(path) in (OLDEST, version)
]
KINDS = {"INT": int, "FLOAT": (int, float), "STRING": str, "BOOLEAN": bool, "COMBO": str}
TRAINING = "MetaLoRA_TrainPersonalization"
# What a workflow may set otherwise than the node's default or the preset of what it trains.
CHOSEN = {"file", "name", "class_name", "photos_folder", "dataset", "gradient_checkpointing"}
CHOSEN |= {"prompts", "methods", "people", "prompts_each"}
PERSONALIZE = [path for path in WORKFLOWS if path.stem.startswith("2_")]
FOLDERS = dict.fromkeys(("clip_name", "clip_name1", "clip_name2"), "text_encoders")
FOLDERS |= {"unet_name": "diffusion_models", "vae_name": "vae"}
SCREEN, BARS = (1366, 768), 80  # the smallest screen; what stands above the canvas of 0.3.64's page

each_file = pytest.mark.parametrize(
    ("path", "version"), FILES_AND_VERSIONS, ids=lambda one: one.stem if isinstance(one, Path) else one
)
each_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)


def notes_of(path: Path) -> str:
    return "\n".join(node["widgets_values"][0] for node in opened(path)["nodes"] if node["type"] in PAGE_ONLY)


@each_file
def test_every_node_is_known_and_every_value_is_there_and_legal(path: Path, version: str):
    schemas = schemas_for(version)
    for node in to_api(opened(path), schemas).values():
        kind, given = node["class_type"], node["inputs"]
        assert given.keys() >= schemas[kind]["input"]["required"].keys(), kind
        for name, shown, options in widgets_of(schemas, kind):
            value, where = given[name], f"{kind}.{name} = {given[name]!r}"
            if isinstance(value, list):
                continue
            assert isinstance(value, KINDS[shown]), where
            assert not isinstance(value, bool) or shown == "BOOLEAN", where
            if shown == "COMBO" and name not in FILES.split():
                assert value in options["options"], where
            if shown in ("INT", "FLOAT"):
                assert options.get("min", value) <= value <= options.get("max", value), where


@each_file
def test_sockets_are_the_schemas_and_a_wire_joins_two_of_one_type_that_both_know_it(path: Path, version: str):
    graph, schemas = opened(path), schemas_for(version)
    nodes, wires = {node["id"]: node for node in graph["nodes"]}, {number: ends for number, *ends in graph["links"]}
    assert (len(nodes), len(wires)) == (len(graph["nodes"]), len(graph["links"])), "a number is given once"
    assert graph["last_node_id"] >= max(nodes)
    assert graph["last_link_id"] >= max(wires, default=0), "or the page gives a number again"
    starts, ends = set(), set()
    for node in nodes.values():
        starts |= {(link, node["id"], slot) for slot, one in enumerate(node["outputs"]) for link in one["links"] or []}
        ends |= {(one["link"], node["id"], slot) for slot, one in enumerate(node["inputs"]) if one["link"] is not None}
        if node["type"] == END:
            continue
        entries = [(one["name"], one["type"]) for one in node["inputs"]]
        marked = [entry for entry, one in zip(entries, node["inputs"], strict=True) if "widget" in one]
        widgets = [(name, kind) for name, kind, _ in widgets_of(schemas, node["type"])]
        sockets = [(name, kind) for name, kind, _ in inputs_of(schemas, node["type"])]
        assert [entry for entry in entries if entry not in marked] == [one for one in sockets if one not in widgets]
        assert {*marked} <= {*widgets, ("upload", "IMAGEUPLOAD")}, node["type"]
        versions = [schemas_for(one) for one in (OLDEST, NEWEST)]  # newer pages give some nodes more outputs
        recorded = [outputs_of(one, node["type"]) for one in versions if node["type"] in (*one, *PAGE_ONLY)]
        assert [(one["name"], one["type"]) for one in node["outputs"]] in recorded, node["type"]
    assert starts == {(number, source, slot) for number, (source, slot, *_) in wires.items()}
    assert ends == {(number, target, slot) for number, (*_, target, slot, _) in wires.items()}
    for source, slot, target, entry, kind in wires.values():
        output, wanted = nodes[source]["outputs"][slot]["type"], nodes[target]["inputs"][entry]["type"]
        assert nodes[source]["type"] == END or slot < len(outputs_of(schemas, nodes[source]["type"]))
        assert wanted in (output, "*"), (nodes[source]["type"], output, wanted)
        assert kind in (output, wanted), (nodes[source]["type"], output, wanted)
    TopologicalSorter({target: {wire[0] for wire in wires.values() if wire[2] == target} for target in nodes}).prepare()


@each_file
def test_what_a_workflow_has_no_reason_to_choose_is_the_nodes_default_or_the_presets(path: Path, version: str):
    schemas = schemas_for(version)
    graph = to_api(opened(path), schemas)
    preset = PRESETS["miniature"] if "MetaLoRA_LoadMiniature" in [n["class_type"] for n in graph.values()] else {}
    for node in graph.values():
        kind, given = node["class_type"], node["inputs"]
        wanted = {"image": demo_portrait().name, **preset}
        if kind == "KSampler" and preset:
            wanted["steps"] = preset["sampling_steps"]
        if kind == TRAINING and "meta_down" not in given:
            wanted |= method_preset("", "lora")
        if kind == "MetaLoRA_BenchmarkPlan":
            wanted["steps"] = 100  # a quick try
        for name, shown, options in widgets_of(schemas, kind):
            if name in CHOSEN or isinstance(given[name], list):
                continue
            if name in wanted or kind.startswith(OURS):
                assert given[name] == wanted.get(name, default_of(shown, options)), f"{kind}.{name}"


@each_file
def test_nodes_lie_beside_each_other_each_in_a_group(path: Path, version: str):
    graph = opened(path)
    boxes = [(*node["pos"], *node["size"]) for node in graph["nodes"] if node["type"] != END]
    assert apart(boxes)
    groups = [group["bounding"] for group in graph["groups"]]
    for x, y, width, height in boxes:
        assert any(x >= u and y >= v and x + width <= u + w and y + height <= v + h for u, v, w, h in groups), (x, y)


@each_workflow
def test_the_opening_view_shows_words_and_where_the_images_will_be(path: Path):
    graph = opened(path)
    scale, (left, top) = graph["extra"]["ds"]["scale"], graph["extra"]["ds"]["offset"]
    assert scale >= READABLE
    seen = [node for node in graph["nodes"] if node["type"] in (*PAGE_ONLY, "SaveImage")]
    assert any(node["type"] in PAGE_ONLY for node in seen), "a workflow explains itself"
    for x, y, width, height in [(*node["pos"], *node["size"]) for node in seen]:
        assert min(x + left, y + top) >= 0
        assert int((x + width + left) * scale) <= SCREEN[0]
        assert int((y + height + top) * scale + BARS) <= SCREEN[1]
    if path != COMPARISON:  # the newer page fits a template into three quarters of its width and height
        right = max(node["pos"][0] + node["size"][0] for node in graph["nodes"])
        bottom = max(node["pos"][1] + node["size"][1] for node in graph["nodes"])
        assert min(0.75 * SCREEN[0] / (right + 20), 0.75 * SCREEN[1] / (bottom + 50)) > READABLE


@each_workflow
def test_a_thumbnail_shows_the_pictures_of_today(path: Path):
    assert path.with_suffix(".jpg").stat().st_size < 100_000
    shown, made = (np.asarray(Image.open(one)) for one in (path.with_suffix(".jpg"), thumbnail(path.stem)))
    changes = np.abs(shown[TITLE:].astype(int) - made[TITLE:])  # below the title, whose letters differ by machine
    assert changes.mean() < 1, "run: python -m tools.thumbnails"


def test_a_link_in_the_guides_opens_a_workflow_that_ships():
    """Of a template's name ComfyUI 0.30's page takes only these letters."""
    names = {path.stem for path in WORKFLOWS}
    assert names == {path.stem for path in (ROOT / "workflows").glob("*.jpg")}
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+", name) for name in names)
    for guide in ("README.md", "docs/nodes.md", "workflows/README.md"):
        text = (ROOT / guide).read_text(encoding="utf-8")
        links = re.findall(r"http://127\.0\.0\.1:8188/\?template=([^&]+)&source=metalora[>`]", text)
        assert links, guide
        assert set(links) <= names


def test_comfyui_can_offer_to_download_what_the_cores_loaders_open_and_the_notes_link_to_it():
    addresses: dict[str, dict[str, str]] = {}
    for path in WORKFLOWS:
        schemas, links = schemas_for(first_version(path)), []
        graph = to_api(opened(path), schemas)
        for node in opened(path)["nodes"]:
            offered = node["properties"].get("models", [])
            inputs = graph.get(str(node["id"]), {"inputs": {}})["inputs"]
            files = [(file, FOLDERS[name]) for name, file in inputs.items() if name in FOLDERS]
            found = [(one["name"], one["directory"]) for one in offered]
            assert found == files or (path == COMPARISON and not found), (path.stem, found, files)
            for one in offered:
                assert addresses.setdefault(one["name"], one) == one, "one address for a file"
                assert re.fullmatch(
                    rf"https://huggingface\.co/\S+/resolve/main/(\S+/)?{re.escape(one['name'])}", one["url"]
                )
                links.append(f"- [{one['name']}]({one['url']}) in models/{one['directory']}")
        if path in PERSONALIZE:
            assert sorted(links) == sorted(line for line in notes_of(path).splitlines() if line.startswith("- "))


def our_part(path: Path) -> tuple[dict, set]:
    """(values, wires) of our own nodes and between them."""
    graph = to_api(opened(path), schemas_for(NEWEST))
    ours = {key: node for key, node in graph.items() if node["class_type"].startswith(OURS)}
    given = [(node["class_type"], name, value) for node in ours.values() for name, value in node["inputs"].items()]
    values = {(kind, name): value for kind, name, value in given if not isinstance(value, list)}
    wires = [(value, kind, name) for kind, name, value in given if isinstance(value, list) and value[0] in ours]
    return values, {(ours[source]["class_type"], slot, kind, name) for (source, slot), kind, name in wires}


def test_personalize_is_one_workflow_for_every_base_and_the_blueprint_its_three_nodes():
    told = []
    for path in PERSONALIZE:
        base = path.stem.removeprefix("2_Personalize_").replace("_", " ")
        lines = [line for line in notes_of(path).splitlines() if not line.startswith("- [")]
        told.append((our_part(path), "\n".join(lines).replace(base, "BASE")))
    assert [one for one in told if one != told[0]] == []
    (values, wires), _ = told[0]
    inside, wires_inside = our_part(BLUEPRINT)
    assert wires_inside == wires
    assert inside.items() <= {**values, (TRAINING, "class_name"): "person"}.items()


def test_the_blueprint_is_one_node_that_shows_its_definitions_sockets_and_known_widgets():
    graph = json.loads(BLUEPRINT.read_text(encoding="utf-8"))
    (node,), (definition,) = graph["nodes"], graph["definitions"]["subgraphs"]
    assert node["type"] == definition["id"]
    for part in ("inputs", "outputs"):
        own, shown = ([(one["name"], one["type"]) for one in whose[part]] for whose in (definition, node))
        assert own == shown
        assert len({one["id"] for one in definition[part]}) == len(own)
    assert [one["name"] for one in node["inputs"] if "widget" not in one] == ["model", "clip", "vae", "photo"]
    shown = [["-1", one["name"]] for one in node["inputs"] if "widget" in one]
    proxies = node["properties"].get(
        "proxyWidgets", []
    )  # [a node inside or -1, its widget]; the page saves sockets instead
    inner = {str(one["id"]): widgets_of(schemas_for(NEWEST), one["type"]) for one in definition["nodes"]}
    assert all(name in [known for known, *_ in inner[number]] for number, name in proxies if number != "-1")
    assert {name for _, name in shown + proxies} == {"name", "class_name", "steps", "rank", "preview"}


def test_the_comparison_has_every_other_method_and_judges_each_with_the_same_node():
    kinds = [node["type"] for node in opened(COMPARISON)["nodes"]]
    assert {"PhotoMakerEncode", "ReferenceLatent", TRAINING, *FOREIGN} <= set(kinds)
    assert kinds.count("MetaLoRA_Evaluate") == kinds.count("VAEDecode") == 4
    notes = notes_of(COMPARISON)
    assert all(node["pack"].rsplit("/", 1)[-1] in notes for node in FOREIGN.values()), "a note says what to install"
