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


def test_a_misspelt_option_is_an_error():
    with pytest.raises(TypeError, match="learning_rat"):
        PersonalizeConfig(learning_rat=1e-3)


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


def test_a_caption_without_a_place_for_the_trigger_is_refused_at_birth():
    with pytest.raises(UserError, match="caption"):  # other captions that cannot be filled in: test_text.py
        PersonalizeConfig(caption="x", trigger="y")


def test_a_size_that_latents_cannot_be_packed_in_is_refused():
    with pytest.raises(UserError, match="multiples of 16, not 1000 x 1024"):
        GenerateConfig(width=1000)


@pytest.mark.parametrize("face", ["first", "0", "-1", ""])
def test_a_face_choice_that_means_nothing_is_refused(face: str):
    with pytest.raises(UserError, match="face must be"):
        CropConfig(face=face)


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
