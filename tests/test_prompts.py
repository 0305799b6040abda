"""The prompts that ship: the paper's to the letter, and the mini benchmark's, through one reader."""

import hashlib
import json
from pathlib import Path

import pytest

from metalora.config import UserError
from metalora.store.prompts import read_prompts, without

DATA = Path(__file__).parents[1] / "metalora" / "data"
PAPER = DATA / "meta_phd" / "prompts.json"
# sha256, first 16 digits, of each text of the supplement's Tables 1 to 3, in their order.
VERBATIM = (Path(__file__).parent / "data" / "meta_phd_prompts.sha256").read_text().split()


def test_the_papers_fifty_prompts_are_verbatim_with_their_source():
    prompts = read_prompts(PAPER).prompts
    assert [hashlib.sha256(prompt.text.encode()).hexdigest()[:16] for prompt in prompts] == VERBATIM
    assert "arXiv 2503.22352" in json.loads(PAPER.read_text())["source"]


def test_forty_are_of_single_photos_and_ten_of_several():
    prompts = read_prompts(PAPER).prompts
    for class_name in ("man", "woman"):
        assert sum(prompt.asked_of(class_name, "single-photo") for prompt in prompts) == 20
        assert sum(prompt.asked_of(class_name, "several-photos") for prompt in prompts) == 10
    groups = {(prompt.class_name, prompt.group) for prompt in prompts}
    assert len(groups) == 5


def test_prompts_that_ask_for_another_age_are_tagged_and_can_be_left_out():
    prompts = read_prompts(PAPER).prompts
    aged = [prompt.text for prompt in prompts if "age" in prompt.tags]
    assert [text[:24] for text in aged] == ["A 90-year-old man with c", "A man as a 1-year-old ba"]
    left = without(prompts, ["age"])
    assert len(left) == 48
    assert not [prompt for prompt in left if "year-old" in prompt.text]
    with pytest.raises(UserError, match="No prompt has the tag hats; there are: age"):
        without(prompts, ["hats"])


def test_prompts_are_filled_in_for_the_person():
    (prompt,) = (prompt for prompt in read_prompts(PAPER).prompts if prompt.id == "unsplash-09")
    assert prompt.filled("woman").startswith("A woman in a modern, casual look")
    assert "her face fully visible and rendered with intricate detail as she looks" in prompt.filled("woman")
    assert "his face fully visible and rendered with intricate detail as he looks" in prompt.filled("man")
    assert not [p.id for p in read_prompts(PAPER).prompts if "{" in p.filled(p.class_name or "person")]


def test_the_mini_benchmarks_prompts_keep_their_ids_and_say_what_they_ask():
    prompts = read_prompts(DATA / "mini_benchmark" / "prompts.json").prompts
    assert len({prompt.id for prompt in prompts}) == 50
    assert prompts[0].id == "several-01"
    assert all(prompt.asks for prompt in prompts)


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
        ([], "must be a JSON object"),
        ({}, "it has no prompt"),
        ({"unsplash": ["a {subjet}"]}, "cannot be filled in"),
        ({"unsplash": [3]}, "unsplash-01 is neither a text nor an object"),
        ({"unsplash": [{"prompt": "a", "ask": {}}]}, "unsplash-01 has the unknown fields ask"),
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
        ({"unsplash": ["a"], "flickr": []}, "unknown key 'flickr'"),
        *((record, "problems") for record in OF_WRONG_TYPES),
    ],
)
def test_what_is_wrong_with_prompts_is_said(tmp_path: Path, record: object, sentence: str):
    (tmp_path / "prompts.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=sentence):
        read_prompts(tmp_path / "prompts.json")
