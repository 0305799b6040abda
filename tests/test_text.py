"""Text files that people write: UTF-8 with or without a mark, and a sentence for everything else."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from metalora.commands.personal import read_prompts as read_prompt_lines
from metalora.config import PersonalizeConfig, UserError
from metalora.store.identities import read_identities
from metalora.store.manifest import read_manifest
from metalora.store.pictures import save_image
from metalora.store.prompts import read_prompts
from metalora.store.tables import read_image_prompts, read_pairs
from metalora.store.text import read_text

MINI = Path(__file__).parents[1] / "metalora" / "data" / "mini_benchmark"
PROMPTS = json.dumps({"several-photos": ["a photo of a {class} in a café"]}, ensure_ascii=False)


def people_with_a_caption(path: Path) -> str | None:
    """The caption, read as a file beside a photo."""
    people = path.parent / "people"
    for name in ("ada", "bob"):
        (people / name).mkdir(parents=True, exist_ok=True)
        (people / name / "1.jpg").touch()
    (people / "ada" / "1.txt").write_bytes(path.read_bytes())
    return read_identities(people)[0].photos[0].caption


def of_a_manifest(path: Path) -> str | None:
    """The caption, read from a manifest of stage 1."""
    for name in ("ada.jpg", "bob.jpg"):
        (path.parent / name).touch()
    return read_identities(path)[0].photos[0].caption


ROWS = [{"identity": name, "path": f"{name}.jpg", "caption": "a café\u2028at night"} for name in ("ada", "bob")]
READERS: dict[str, tuple[str, Callable[[Path], object], object]] = {
    "prompts.txt": ("a café\n# no prompt\nat night\n", read_prompt_lines, ["a café", "at night"]),
    "prompts.json": (PROMPTS, lambda p: read_prompts(p).prompts[0].text, "a photo of a {class} in a café"),
    "table.csv": ("image,prompt\na.png,a café\n", read_image_prompts, {"a.png": "a café"}),
    "wanted.jsonl": (
        json.dumps({"path": "a.png", "prompt": "a café"}, ensure_ascii=False),
        read_image_prompts,
        {"a.png": "a café"},
    ),
    "caption.txt": ("a café", people_with_a_caption, "a café"),
    "people.jsonl": (
        "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS),
        of_a_manifest,
        "a café\u2028at night",
    ),
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "with-a-mark"])
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["unix", "windows"])
def test_a_byte_order_mark_and_windows_line_ends_change_nothing(tmp_path: Path, name: str, mark: str, end: str):
    text, read, found = READERS[name]
    (tmp_path / name).write_bytes((mark + text.replace("\n", end)).encode())
    assert read(tmp_path / name) == found


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "cp1252"])
def test_another_encoding_is_refused_with_what_to_do(tmp_path: Path, name: str, encoding: str):
    text, read, _ = READERS[name]
    (tmp_path / name).write_bytes(text.replace("\u2028", " ").encode(encoding))
    with pytest.raises(UserError, match="save it as UTF-8"):
        read(tmp_path / name)


def test_a_manifest_and_a_table_of_pairs_may_have_a_mark(tmp_path: Path):
    data = (MINI / "manifest.jsonl").read_bytes()
    (tmp_path / "photos").symlink_to(MINI / "photos")
    (tmp_path / "manifest.jsonl").write_bytes(b"\xef\xbb\xbf" + data)
    assert len(read_manifest(tmp_path / "manifest.jsonl", look=False).people) > 10
    (tmp_path / "manifest.jsonl").write_bytes(data.decode().encode("utf-16"))
    with pytest.raises(UserError, match="save it as UTF-8"):
        read_manifest(tmp_path / "manifest.jsonl", look=False)
    save_image(torch.zeros(3, 8, 8), tmp_path / "a.png")
    (tmp_path / "pairs.csv").write_text("\ufefffirst,second,same\na.png,a.png,1\n", encoding="utf-8")
    assert read_pairs(tmp_path / "pairs.csv", tmp_path)[0].same


def test_a_missing_file_is_a_sentence(tmp_path: Path):
    with pytest.raises(UserError, match=r"gone\.txt cannot be read"):
        read_text(tmp_path / "gone.txt")


@pytest.mark.parametrize("field", ["{class:0>3000000000}", "{class.foo}", "{class!r}", "{0}", "{}", "{class", "{x}"])
def test_templates_take_names_and_nothing_else(tmp_path: Path, field: str):
    with pytest.raises(UserError, match="cannot be filled in"):
        PersonalizeConfig(caption=f"a photo of a {field}")
    (tmp_path / "prompts.json").write_text(json.dumps({"several-photos": [f"a {field}"]}))
    with pytest.raises(UserError, match="cannot be filled in"):
        read_prompts(tmp_path / "prompts.json")


def test_a_setting_of_bytes_that_are_no_text_is_refused():
    with pytest.raises(UserError, match="UTF-8 is needed"):
        PersonalizeConfig(class_name="caf\udce9")
