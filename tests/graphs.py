"""Workflow files beside the recorded schemas of their nodes, and what the page sends the server of them."""

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import record_nodes
from record_nodes import Schemas

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / "workflows").glob("*.json"))
COMPARISON = ROOT / "workflows" / "7_Compare_with_other_methods.json"
BLUEPRINT = ROOT / "subgraphs" / "Photo to person LoRA.json"
FOREIGN: Schemas = json.loads(record_nodes.FOREIGN.read_text(encoding="utf-8"))  # of other packs
RECORDS: dict[str, Schemas] = {
    path.stem: json.loads(path.read_text(encoding="utf-8")) for path in record_nodes.FOLDER.glob("[0-9]*.json")
}
OLDEST, NEWEST = "0.3.64", "0.30.0"
PAGE_ONLY = ("MarkdownNote", "Note")  # nodes that the server never sees
END = "end"  # a blueprint's own inputs or outputs
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
LINK = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
READABLE = 0.572  # below this scale the page draws no text

Graph = dict[str, Any]
Input = tuple[str, str, dict[str, Any]]


def first_version(path: Path) -> str:
    """The oldest ComfyUI that has every node of a workflow, but those of other packs."""
    newer = path == BLUEPRINT or (path.stem.startswith(("2_", "7_")) and path.stem != "2_Personalize_FLUX.1-dev")
    return NEWEST if newer else OLDEST


def schemas_for(version: str) -> Schemas:
    """Of a ComfyUI that has the other packs, too."""
    return {**FOREIGN, **RECORDS[version]}


def opened(path: Path) -> Graph:
    """A workflow; of a blueprint the graph inside, with its inputs and outputs as two nodes more."""
    graph = json.loads(path.read_text(encoding="utf-8"))
    if "definitions" not in graph:
        return graph
    (inner,) = graph["definitions"]["subgraphs"]
    starts = [{**one, "links": one["linkIds"]} for one in inner["inputs"]]
    ends = [{**one, "link": number} for one in inner["outputs"] for number in one["linkIds"]]
    nodes = [
        {"id": inner["inputNode"]["id"], "type": END, "inputs": [], "outputs": starts},
        {"id": inner["outputNode"]["id"], "type": END, "inputs": ends, "outputs": []},
    ]
    last = {"last_node_id": inner["state"]["lastNodeId"], "last_link_id": inner["state"]["lastLinkId"]}
    links = [[link[key] for key in LINK] for link in inner["links"]]
    return {**last, "nodes": inner["nodes"] + nodes, "groups": inner["groups"], "links": links}


def inputs_of(schemas: Schemas, kind: str) -> list[Input]:
    """(name, type, options) of each input in the node's order; a list of choices is a COMBO."""
    found = []
    for part in ("required", "optional") if kind not in PAGE_ONLY else ():
        for name, (shown, *rest) in schemas[kind]["input"].get(part, {}).items():
            options = {**(rest[0] if rest else {}), **({"options": shown} if isinstance(shown, list) else {})}
            found.append((name, "COMBO" if isinstance(shown, list) else shown, options))
    return found


def widgets_of(schemas: Schemas, kind: str) -> list[Input]:
    """The inputs that the page shows as widgets, which have values in the file."""
    return [one for one in inputs_of(schemas, kind) if one[1] in WIDGETS and not one[2].get("forceInput")]


def outputs_of(schemas: Schemas, kind: str) -> list[tuple[str, str]]:
    """(name, type) of each output."""
    return [] if kind in PAGE_ONLY else list(zip(schemas[kind]["output_name"], schemas[kind]["output"], strict=True))


def default_of(kind: str, options: dict[str, Any]) -> Any:
    """What a widget shows before anybody touches it."""
    first = (options.get("options") or [""])[0]
    zero = {"INT": options.get("min", 0), "FLOAT": options.get("min", 0.0), "STRING": "", "BOOLEAN": False}
    return options.get("default", zero.get(kind, first))


def apart(boxes: list[tuple[float, float, float, float]]) -> bool:
    """Whether no two of (x, y, width, height) lie on each other."""
    return not any(
        x < u + width and u < x + w and y < v + height and v < y + h
        for (x, y, w, h), (u, v, width, height) in combinations(boxes, 2)
    )


def to_api(graph: Graph, schemas: Schemas) -> dict[str, dict[str, Any]]:
    """{node id: {"class_type", "inputs"}}, as the page sends it; an AssertionError where the values do not fit."""
    links = {number: [str(source), slot] for number, source, slot, *_ in graph["links"]}
    made = {}
    for node in graph["nodes"]:
        if node["type"] in (*PAGE_ONLY, END):
            continue
        values, inputs = list(node["widgets_values"]), {}
        for name, _, options in widgets_of(schemas, node["type"]):
            assert values, f"{node['type']} has no value of {name}"
            inputs[name] = values.pop(0)
            if options.get("control_after_generate"):  # what becomes of a seed after each run
                assert values.pop(0) == "fixed", f"{node['type']}.{name} would not give the same again"
            if options.get("image_upload"):
                assert values.pop(0) == "image"
        assert not values, f"{node['type']} has more values than widgets: {values}"
        inputs |= {entry["name"]: links[entry["link"]] for entry in node["inputs"] if entry["link"] is not None}
        made[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return made
