"""The subgraph blueprint of ComfyUI's node library: a photo in, a person's LoRA out, as one node with four inputs.

What one is made of is what the page writes when it saves one: a definition, and a node of its type.
"""

import uuid
from typing import Any

from .graph import Graph, Schemas

NAME = "Photo to person LoRA"
IN, OUT = -10, -20  # the ids that stand for the subgraph's own inputs and outputs
SOCKET = ("id", "name", "type", "linkIds")


def photo_to_lora(schemas: Schemas) -> dict[str, Any]:
    """The file: crops, a training without a Meta-Down, and the LoRA file, behind four inputs."""
    graph = Graph(schemas, NAME)
    learn = graph.column(NAME, "learn", 400)
    crops = learn.add("MetaLoRA_AugmentFaceCrops")
    trained = learn.add("MetaLoRA_TrainPersonalization", crops=crops["crops"], heads=crops["heads"], steps=625)
    merged = learn.add("MetaLoRA_MergeToLora", adapter=trained["adapter"])
    inner = graph.as_file()
    made = Subgraph(inner)
    for name in ("model", "clip", "vae"):
        made.take(name, (trained.number, name))
    made.take("photo", (crops.number, "photo"))
    made.take("name", (trained.number, "name"), (merged.number, "name"))
    for name, node in (("personal_model", trained), ("lora", trained), ("loss_plot", trained), ("sheet", crops)):
        made.give(name, node.number)
    shown = [["-1", "name"], *([str(trained.number), name] for name in ("class_name", "steps", "rank", "preview"))]
    return made.as_file(shown)


class Subgraph:
    """A graph behind inputs and outputs of its own."""

    def __init__(self, inner: dict[str, Any]):
        self.nodes = {node["id"]: node for node in inner["nodes"]}
        self.groups = inner["groups"]
        self.inputs: list[dict[str, Any]] = []
        self.outputs: list[dict[str, Any]] = []
        self.links = [
            dict(zip(("id", "origin_id", "origin_slot", "target_id", "target_slot", "type"), link, strict=True))
            for link in inner["links"]
        ]

    def take(self, name: str, *targets: tuple[int, str]) -> None:
        """An input that leads to these nodes' inputs; to a widget, it is one."""
        links = []
        for number, wanted in targets:
            entries = self.nodes[number]["inputs"]
            slot = next((index for index, entry in enumerate(entries) if entry["name"] == wanted), len(entries))
            if slot == len(entries):
                entries.append({"name": wanted, "type": "STRING", "widget": {"name": wanted}, "link": None})
            entries[slot]["link"] = self.linked(IN, len(self.inputs), number, slot, entries[slot]["type"])
            links.append(entries[slot]["link"])
        self.inputs.append(socket(name, entries[slot]["type"], links, "widget" in entries[slot]))

    def give(self, name: str, number: int) -> None:
        """An output of one of its nodes, under its own name."""
        outputs = self.nodes[number]["outputs"]
        slot = next(index for index, output in enumerate(outputs) if output["name"] == name)
        link = self.linked(number, slot, OUT, len(self.outputs), outputs[slot]["type"])
        outputs[slot]["links"].append(link)
        self.outputs.append(socket(name, outputs[slot]["type"], [link], widget=False))

    def linked(self, origin: int, origin_slot: int, target: int, target_slot: int, kind: str) -> int:
        """A new link's number."""
        link = {"id": len(self.links) + 1, "origin_id": origin, "origin_slot": origin_slot}
        self.links.append(link | {"target_id": target, "target_slot": target_slot, "type": kind})
        return len(self.links)

    def as_file(self, shown: list[list[str]]) -> dict[str, Any]:
        """One node of this type; `shown` are the widgets on it, each as [a node inside or -1, its name]."""
        kind = str(uuid.uuid5(uuid.NAMESPACE_URL, NAME))
        sockets = [{key: one[key] for key in ("name", "type", "widget") if key in one} for one in self.inputs]
        node = {
            "id": 1,
            "type": kind,
            "pos": [0, 0],
            "size": [400, 320],
            "flags": {},
            "order": 0,
            "mode": 0,
            "title": NAME,
            "inputs": [one | {"link": None} for one in sockets],
            "outputs": [{"name": one["name"], "type": one["type"], "links": None} for one in self.outputs],
            "properties": {"proxyWidgets": shown, "cnr_id": "metalora"},
            "widgets_values": [],
        }
        definition = {
            "id": kind,
            "version": 1,
            "state": {"lastGroupId": 0, "lastNodeId": 3, "lastLinkId": len(self.links), "lastRerouteId": 0},
            "revision": 0,
            "config": {},
            "name": NAME,
            "inputNode": {"id": IN, "bounding": [-300, 0, 140, 40 + 20 * len(self.inputs)]},
            "outputNode": {"id": OUT, "bounding": [560, 0, 140, 40 + 20 * len(self.outputs)]},
            "inputs": [{key: one[key] for key in SOCKET} for one in self.inputs],
            "outputs": [{key: one[key] for key in SOCKET} for one in self.outputs],
            "widgets": [],
            "nodes": list(self.nodes.values()),
            "groups": self.groups,
            "links": self.links,
            "extra": {},
            "category": "Meta-LoRA",
            "description": "Learns one person from one photo and writes an ordinary LoRA file; the model it gives "
            "wears it.",
        }
        return {
            "revision": 0,
            "last_node_id": 1,
            "last_link_id": 0,
            "nodes": [node],
            "links": [],
            "version": 0.4,
            "definitions": {"subgraphs": [definition]},
            "extra": {},
        }


def socket(name: str, kind: str, links: list[int], widget: bool) -> dict[str, Any]:
    """One end of the subgraph; the same name gives the same id."""
    made = {"id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{NAME}/{name}")), "name": name, "type": kind, "linkIds": links}
    return made | ({"widget": {"name": name}} if widget else {})
