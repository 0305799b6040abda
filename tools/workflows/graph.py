"""A graph written down as code, and the file that ComfyUI's page opens: what is not said is the node's own default."""

import copy
import re
from dataclasses import dataclass, field
from typing import Any

from .bases import MODEL_FILES

NODE_WIDTH, ROW, SLOT, TITLE, GAP = 300, 24, 20, 30, 20
CONTROL = "fixed"  # what becomes of a seed after each run
COLORS = {"load": ("#233", "#355"), "learn": ("#232", "#353"), "make": ("#223", "#335"), "judge": ("#322", "#533")}
GROUP_COLORS = {"load": "#3f789e", "learn": "#8A8", "make": "#88A", "judge": "#A88", "note": "#444"}
WITH_A_PICTURE = (
    "LoadImage",
    "SaveImage",
    "PreviewImage",
    "LossGraphNode",
    "PreviewAny",  # its text
    "MetaLoRA_TrainPersonalization",  # its preview
    "MetaLoRA_MetaTrain",
)
PICTURE = 150  # of height
VIEW, LEFT, TOP = (1366, 768), 76, 98  # the smallest screen; what the page's own bars take of it
BARS = 80  # above the canvas of 0.3.64's page
READABLE = 0.572  # below this scale the page draws no text
ABOVE = 75  # of the first node in a group, for both titles
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")

Schemas = dict[str, dict[str, Any]]


@dataclass
class Node:
    """A node of the graph and where it stands."""

    number: int
    kind: str
    title: str | None
    position: tuple[float, float]
    size: tuple[float, float]
    color: str
    given: dict[str, Any]

    def __getitem__(self, output: str) -> "Wire":
        return Wire(self, output)


@dataclass(frozen=True)
class Wire:
    """An output of a node, by the name that the node shows."""

    node: Node
    output: str


@dataclass
class Graph:
    """Columns of nodes from left to right, each a group with a title."""

    schemas: Schemas
    title: str
    nodes: list[Node] = field(default_factory=list)
    groups: list[dict[str, Any]] = field(default_factory=list)
    left: float = 0.0

    def column(self, title: str, color: str, width: float = NODE_WIDTH) -> "Column":
        """The next group to the right."""
        made = Column(self, title, color, self.left, width)
        self.left += width + 3 * GAP
        return made

    def view(self) -> dict[str, Any]:
        """All of it on the smallest screen, or its beginning where that could not be read."""
        right = max(node.position[0] + node.size[0] for node in self.nodes)
        bottom = max(node.position[1] + node.size[1] for node in self.nodes)
        fits = min((VIEW[0] - LEFT - GAP) / (right + GAP), (VIEW[1] - BARS - TOP) / (bottom + ABOVE))
        scale = round(min(max(fits, READABLE), 1.0), 3)
        return {"scale": scale, "offset": [LEFT / scale + GAP, TOP / scale + ABOVE]}

    def as_file(self) -> dict[str, Any]:
        """What the page opens (version 0.4 of its format)."""
        links: list[list[Any]] = []
        entries = [self._entry(node, links) for node in self.nodes]
        for number, source, slot, *_ in links:
            entries[source - 1]["outputs"][slot]["links"].append(number)
        return {
            "last_node_id": len(self.nodes),
            "last_link_id": len(links),
            "nodes": entries,
            "links": links,
            "groups": self.groups,
            "config": {},
            "extra": {"ds": self.view()},
            "version": 0.4,
        }

    def _entry(self, node: Node, links: list[list[Any]]) -> dict[str, Any]:
        inputs, widgets = [], []
        for name, kind, options in inputs_of(self.schemas, node.kind):
            value = node.given.get(name)
            if isinstance(value, Wire):
                number = len(links) + 1
                slot = outputs_of(self.schemas, value.node.kind).index(value.output)
                links.append([number, value.node.number, slot, node.number, len(inputs), kind])
                inputs.append(
                    {"name": name, "type": kind, "link": number} | widget_mark(name, is_widget(kind, options))
                )
            elif not is_widget(kind, options):
                inputs.append({"name": name, "type": kind, "link": None})
            if is_widget(kind, options):
                widgets.append(default_of(kind, options) if isinstance(value, Wire | None) else value)
                widgets += [CONTROL] if options.get("control_after_generate") else []
                widgets += ["image"] if options.get("image_upload") else []
        schema = self.schemas.get(node.kind, {"output": []})
        shown = outputs_of(self.schemas, node.kind)
        outputs = [{"name": n, "type": t, "links": []} for n, t in zip(shown, schema["output"], strict=True)]
        entry = {
            "id": node.number,
            "type": node.kind,
            "pos": list(node.position),
            "size": list(node.size),
            "flags": {},
            "order": node.number - 1,
            "mode": 0,
            "inputs": inputs,
            "outputs": outputs,
            "properties": properties_of(node.kind, node.given),
            "widgets_values": [node.given["text"]] if node.kind == "MarkdownNote" else widgets,
            "color": COLORS.get(node.color, ("#432", "#653"))[0],
            "bgcolor": COLORS.get(node.color, ("#432", "#653"))[1],
        }
        return entry | ({"title": node.title} if node.title else {})


class Column:
    """A group of nodes under each other."""

    def __init__(self, graph: Graph, title: str, color: str, left: float, width: float):
        self.graph, self.color, self.left, self.width, self.bottom = graph, color, left, width, 0.0
        self.group = {"title": title, "color": GROUP_COLORS[color], "font_size": 24, "flags": {}, "bounding": []}
        graph.groups.append(self.group)

    def add(self, kind: str, title: str | None = None, /, *, least: float = 0, **given: Any) -> Node:
        """A node below the others, at least so high; `given` are its inputs, and a wrong name is refused."""
        known = {name for name, _, _ in inputs_of(self.graph.schemas, kind)} if kind != "MarkdownNote" else {"text"}
        assert given.keys() <= known, f"{kind} has no {given.keys() - known}"
        size = (self.width, max(least, self._height(kind)))
        color = "note" if kind == "MarkdownNote" else self.color
        node = Node(len(self.graph.nodes) + 1, kind, title, (self.left, self.bottom), size, color, copy.copy(given))
        self.graph.nodes.append(node)
        self.bottom += size[1] + TITLE + GAP
        self.group["bounding"] = [self.left - GAP, -ABOVE, self.width + 2 * GAP, self.bottom + ABOVE - TITLE]
        return node

    def note(self, text: str) -> Node:
        """Words on the graph."""
        shown = re.sub(r"\]\(\S*\)", "", text)  # without the addresses of links
        lines = sum(1 + len(line) // (self.width // 6) for line in shown.splitlines())
        return self.add("MarkdownNote", "Note", least=40 + 13 * lines, text=text)

    def _height(self, kind: str) -> float:
        inputs = inputs_of(self.graph.schemas, kind) if kind != "MarkdownNote" else []
        widgets = sum(1 for _, shown, options in inputs if is_widget(shown, options))
        widgets += sum(1 for *_, options in inputs if options.get("control_after_generate"))
        widgets += sum(3 for *_, options in inputs if options.get("image_upload"))  # a button, the picture's size
        tall = sum(80 for *_, options in inputs if options.get("multiline"))
        picture = PICTURE if kind in WITH_A_PICTURE else 0
        outputs = len(self.graph.schemas.get(kind, {"output": []})["output"])
        return 18 + ROW * widgets + SLOT * max(len(inputs) - widgets, outputs, 1) + tall + picture


def properties_of(kind: str, given: dict[str, Any]) -> dict[str, Any]:
    """By which the page finds the pack of a node that is missing, and offers to download the files it loads."""
    files = [value for value in given.values() if isinstance(value, str) and value in MODEL_FILES]
    models = [{"name": file, "url": MODEL_FILES[file][1], "directory": MODEL_FILES[file][0]} for file in files]
    return {"Node name for S&R": kind} | ({"cnr_id": "comfy-core", "models": models} if models else {})


def inputs_of(schemas: Schemas, kind: str) -> list[tuple[str, str, dict[str, Any]]]:
    """(name, type, options) of each input in the node's order; a list of choices is a COMBO."""
    if kind == "MarkdownNote":
        return []
    found = []
    for part in ("required", "optional"):
        for name, (shown, *rest) in schemas[kind]["input"].get(part, {}).items():
            options = dict(rest[0]) if rest else {}
            if isinstance(shown, list):
                options["options"] = shown
            found.append((name, "COMBO" if isinstance(shown, list) else shown, options))
    return found


def outputs_of(schemas: Schemas, kind: str) -> list[str]:
    """The names of a node's outputs."""
    return schemas[kind]["output_name"] if kind in schemas else []


def default_of(kind: str, options: dict[str, Any]) -> Any:
    """What a widget shows before anybody touches it."""
    if "default" in options:
        return options["default"]
    if kind == "COMBO":
        return (options.get("options") or [""])[0]
    return {"INT": options.get("min", 0), "FLOAT": options.get("min", 0.0), "STRING": "", "BOOLEAN": False}[kind]


def is_widget(kind: str, options: dict[str, Any]) -> bool:
    """Whether an input is shown as a widget, and has a value in the file."""
    return kind in WIDGETS and not options.get("forceInput")


def widget_mark(name: str, is_widget: bool) -> dict[str, Any]:
    """How the file says that a wire goes into a widget."""
    return {"widget": {"name": name}} if is_widget else {}
