"""A workflow file as the page sends it to the server: what the page does when Run is pressed."""

from typing import Any

from tools.workflows.graph import CONTROL, Schemas, inputs_of, is_widget

PAGE_ONLY = ("MarkdownNote", "Note")  # nodes that the server never sees


def to_api(workflow: dict[str, Any], schemas: Schemas) -> dict[str, dict[str, Any]]:
    """{node id: {"class_type", "inputs"}}; an AssertionError where the file does not fit the schemas."""
    links = {number: (str(source), slot) for number, source, slot, *_ in workflow["links"]}
    graph = {}
    for node in workflow["nodes"]:
        if node["type"] in PAGE_ONLY:
            continue
        values = iter(node["widgets_values"])
        wired = {entry["name"]: links[entry["link"]] for entry in node["inputs"] if entry["link"] is not None}
        inputs: dict[str, Any] = {}
        for name, kind, options in inputs_of(schemas, node["type"]):
            if is_widget(kind, options):
                inputs[name] = next(values)
                if options.get("control_after_generate"):
                    assert next(values) == CONTROL
                if options.get("image_upload"):
                    assert next(values) == "image"
            if name in wired:
                inputs[name] = list(wired.pop(name))
        assert not wired, f"{node['type']} has no inputs {wired}"
        assert not list(values), f"{node['type']} has more widget values than widgets"
        graph[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return graph
