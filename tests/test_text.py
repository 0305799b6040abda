"""Text files that people write, in UTF-8 with or without a mark; among them prompts, those that ship and wrong ones."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from metalora.commands.personal import read_prompts as read_prompt_lines
from metalora.config import PersonalizeConfig, UserError
from metalora.settings import read_settings
from metalora.store.identities import read_identities
from metalora.store.manifest import read_manifest
from metalora.store.prompts import read_prompts, without
from metalora.store.tables import read_image_prompts
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
    "settings.toml": ('trigger = "a café"\n', read_settings, {"trigger": "a café"}),
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
    with pytest.raises(UserError, match=r"gone\.txt cannot be read"):
        read_text(tmp_path / "gone.txt")


def test_a_benchmarks_manifest_may_have_a_mark(tmp_path: Path):
    data = (MINI / "manifest.jsonl").read_bytes()
    (tmp_path / "photos").symlink_to(MINI / "photos")
    (tmp_path / "manifest.jsonl").write_bytes(b"\xef\xbb\xbf" + data)
    assert len(read_manifest(tmp_path / "manifest.jsonl", look=False).people) > 10
    (tmp_path / "manifest.jsonl").write_bytes(data.decode().encode("utf-16"))
    with pytest.raises(UserError, match="save it as UTF-8"):
        read_manifest(tmp_path / "manifest.jsonl", look=False)


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


PAPER = MINI.parent / "meta_phd" / "prompts.json"
# sha256, first 16 digits, of each text of the supplement's Tables 1 to 3, in their order.
VERBATIM = (Path(__file__).parent / "data" / "meta_phd_prompts.sha256").read_text().split()


def test_the_papers_prompts_are_verbatim_tagged_by_part_and_age_and_filled_in_for_the_person():
    prompts = read_prompts(PAPER).prompts
    assert [hashlib.sha256(prompt.text.encode()).hexdigest()[:16] for prompt in prompts] == VERBATIM
    assert "arXiv 2503.22352" in json.loads(PAPER.read_text())["source"]
    for class_name in ("man", "woman"):
        assert sum(prompt.asked_of(class_name, "single-photo") for prompt in prompts) == 20
        assert sum(prompt.asked_of(class_name, "several-photos") for prompt in prompts) == 10
    groups = {(prompt.class_name, prompt.group) for prompt in prompts}
    assert len(groups) == 5
    aged = [prompt.text for prompt in prompts if "age" in prompt.tags]
    assert [text[:24] for text in aged] == ["A 90-year-old man with c", "A man as a 1-year-old ba"]
    left = without(prompts, ["age"])
    assert len(left) == 48
    assert not [prompt for prompt in left if "year-old" in prompt.text]
    with pytest.raises(UserError, match="No prompt has the tag hats; there are: age"):
        without(prompts, ["hats"])
    (prompt,) = (prompt for prompt in read_prompts(PAPER).prompts if prompt.id == "unsplash-09")
    assert prompt.filled("woman").startswith("A woman in a modern, casual look")
    assert "her face fully visible and rendered with intricate detail as she looks" in prompt.filled("woman")
    assert "his face fully visible and rendered with intricate detail as he looks" in prompt.filled("man")
    assert not [p.id for p in read_prompts(PAPER).prompts if "{" in p.filled(p.class_name or "person")]


OF_WRONG_TYPES = [
    {"several-photos": "a"},
    {"several-photos": {"a": 1}},
    {"several-photos": [{"id": 3, "prompt": "a"}]},
    {"several-photos": [{"prompt": "a", "asks": ["x"]}]},
    {"several-photos": [{"prompt": "a", "asks": {"x": []}}]},
    {"single-photo": ["a"]},
    {"single-photo": {"woman": ["a"]}},
    {"single-photo": {"woman": {"g": "abc"}}},
    {"several-photos": ["a"], "tags": ["a"]},
    {"several-photos": ["a"], "tags": {"age": 3}},
    {"several-photos": ["a"], "tags": {"age": [["a"]]}},
    {"several-photos": ["a"], "alternatives": {"x": {"y": ["z"]}}},
]


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        ([], "is not of type 'object'"),
        ({}, "it has no prompt"),
        ({"unsplash": ["a {subjet}"]}, "cannot be filled in"),
        ({"unsplash": [3]}, r"unsplash\[0\]: 3 is not of type 'string', 'object'"),
        (
            {"unsplash": [{"prompt": "a", "ask": {}}]},
            r"unsplash\[0\]: Additional properties are not allowed \('ask' was unexpected\)",
        ),
        ({"ffhq": {"wizard": {"x": ["a"]}}}, "for the class 'wizard', not one of woman, man"),
        ({"unsplash": ["a"], "tags": {"age": ["b"]}}, "a tag names a prompt that is not there: 'b'"),
        ({"unsplash": [{"prompt": "a", "id": "x"}, {"prompt": "b", "id": "x"}]}, "the id x is there 2 times"),
        (
            {
                "unsplash": [{"prompt": "a", "asks": {"sky": "red"}}],
                "alternatives": {"sky": {"blue": "blue sky", "x": "y"}},
            },
            "unsplash-01 asks for the sky 'red', which is not among its alternatives",
        ),
        ({"unsplash": ["a"], "alternatives": {"sky": {"a": "b"}}}, "must be at least two different phrases"),
        ({"unsplash": ["a"], "flickr": []}, "'flickr' was unexpected"),
        *((record, "problem") for record in OF_WRONG_TYPES),
    ],
)
def test_what_is_wrong_with_prompts_is_said(tmp_path: Path, record: object, sentence: str):
    (tmp_path / "prompts.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=sentence):
        read_prompts(tmp_path / "prompts.json")
