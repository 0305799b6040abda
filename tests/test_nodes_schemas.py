"""Every node's schema is what real ComfyUIs were recorded to make of it; needs no ComfyUI."""

import json

import pytest
from comfy_standin import pack_on_the_standin
from record_nodes import FILES, OURS

from tools.workflows.schemas import RECORDS


@pytest.mark.parametrize("version", RECORDS)
def test_every_nodes_schema_is_the_recorded_one(version: str):
    schemas = RECORDS[version]
    with pack_on_the_standin() as nodes:
        made = {schema.node_id: schema.recorded() for schema in (node.define_schema() for node in nodes.NODES)}
    assert made.keys() == {name for name in schemas if name.startswith(OURS)}
    for name, schema in made.items():
        for entries in schema["input"].values():
            for key, (_, options) in entries.items():
                assert options.pop("tooltip", ""), f"{name}.{key} has no tooltip"
                if key in FILES.split():
                    options.pop("options", None)
        assert json.loads(json.dumps(schema)) == schemas[name], name
