"""Every node's schema is what real ComfyUIs were recorded to make of it, and its words are whole; needs no ComfyUI."""

import json

import pytest
from comfy_standin import pack_on_the_standin
from graphs import OLDEST, RECORDS, ROOT, inputs_of, outputs_of
from record_nodes import FILES, LOCALE, OURS

SCHEMAS = RECORDS[OLDEST]


@pytest.mark.parametrize("version", RECORDS)
def test_every_nodes_schema_is_the_recorded_one(version: str):
    schemas = RECORDS[version]
    with pack_on_the_standin() as nodes:
        made = {schema.node_id: schema.recorded() for schema in (node.define_schema() for node in nodes.NODES)}
    assert made.keys() == {name for name in schemas if name.startswith(OURS)}
    for name, schema in made.items():
        for entries in schema["input"].values():
            for key, (_, options) in entries.items():
                if key in FILES.split():
                    options.pop("options", None)
        assert json.loads(json.dumps(schema)) == schemas[name], name


@pytest.mark.parametrize("kind", [kind for kind in SCHEMAS if kind.startswith(OURS)])
def test_every_node_has_help_that_names_each_input_and_output_and_a_tooltip_for_each(kind: str):
    page = (ROOT / "web" / "docs" / f"{kind}.md").read_text(encoding="utf-8")
    assert f"- nodes/{kind}.md" in (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), "the site is built strictly"
    rows = [
        cell.strip() for line in page.splitlines() if line.startswith("|") for cell in line.split("|")[1].split(",")
    ]
    names = [name for name, *_ in (*inputs_of(SCHEMAS, kind), *outputs_of(SCHEMAS, kind))]
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
