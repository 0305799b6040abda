"""A setting is declared once: its range check and its flag come from the same line."""

import argparse
import dataclasses

import pytest

from metalora.cli import add_options, settings_of
from metalora.config import CropConfig, GenerateConfig, PersonalizeConfig, UserError
from metalora.settings import PRESETS, config_of


def test_every_option_out_of_range_is_listed_in_one_message():
    with pytest.raises(UserError) as error:
        PersonalizeConfig(steps=0, learning_rate=float("nan"), method="dora", seed="one")
    message = str(error.value)
    assert "steps must be at least 1, got 0" in message
    assert "learning_rate must be a finite number, got nan" in message
    assert "method must be one of meta-lora, lora, got 'dora'" in message
    assert "seed must be int, got 'one'" in message


@pytest.mark.parametrize(
    ("options", "prompt"),
    [
        ({"class_name": "woman"}, "a photo of a woman"),
        ({"class_name": "woman", "trigger": "ada"}, "a photo of a ada woman"),
        ({"class_name": "cat", "caption": "{class}, painted"}, "cat, painted"),
    ],
)
def test_the_caption_is_filled_in(options: dict[str, str], prompt: str):
    config = PersonalizeConfig(**options)
    assert config.prompt == prompt
    assert config.class_prompt == prompt.replace("ada ", "")


@pytest.mark.parametrize(
    ("kind", "options", "sentence"),
    [
        (PersonalizeConfig, {"caption": "x", "trigger": "y"}, "caption"),  # no place for it; others: test_text.py
        (GenerateConfig, {"width": 1000}, "multiples of 16, not 1000 x 1024"),
        *((CropConfig, {"face": face}, "face must be") for face in ("first", "0", "-1", "")),
    ],
)
def test_what_means_nothing_is_refused_at_birth(kind: type, options: dict[str, object], sentence: str):
    with pytest.raises(UserError, match=sentence):
        kind(**options)


@pytest.mark.parametrize("config", [CropConfig, PersonalizeConfig, GenerateConfig])
def test_flags_give_back_every_option(config: type):
    parser = argparse.ArgumentParser()
    add_options(parser, config)
    defaults = config()
    arguments = []
    for option in dataclasses.fields(config):
        value = getattr(defaults, option.name)
        flag = option.metadata["flag"] or "--" + option.name.replace("_", "-")
        arguments += [flag if value else flag.replace("--", "--no-")] if option.type is bool else [flag, str(value)]
    assert config_of(config, settings_of(parser.parse_args(arguments), config), "tiny") == defaults


def test_a_given_flag_beats_the_preset_of_the_backbone_and_the_preset_beats_the_default():
    parser = argparse.ArgumentParser()
    add_options(parser, CropConfig)
    nothing, given = (settings_of(parser.parse_args(words), CropConfig) for words in ([], ["--resolution", "256"]))
    assert config_of(CropConfig, nothing, "flux-dev").resolution == 1024
    assert config_of(CropConfig, nothing, "tiny").resolution == PRESETS["tiny"]["resolution"]
    assert config_of(CropConfig, given, "tiny").resolution == 256
