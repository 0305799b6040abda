"""What a caption can say about a photo, in a fixed vocabulary: attributes -> words, and words -> attributes.

Every attribute has its own phrase and every phrase belongs to one attribute, so a caption can be read back, attributes
can be left out (a prompt rarely says everything), and prompt adherence can be measured attribute by attribute.
"""

from .looks import BEARDS, COLOURS, HAIR_COLOURS, HAIR_STYLES
from .people import KINDS

Attributes = dict[str, str]

EXPRESSIONS = ("neutral", "smiling", "laughing", "surprised", "frowning")
TURNS = ("left", "front", "right")
GARMENTS = ("t-shirt", "v-neck", "turtleneck", "striped-shirt")
PLACES = ("studio", "room", "outdoors")
LIGHTS = ("soft", "side", "warm", "cold")

_BEARD_PHRASES = {"shaven": "clean shaven", "stubble": "stubble", "moustache": "moustache", "beard": "full beard"}

# attribute -> {value: phrase}, in the order a caption says them. Values of two words are "value value".
PHRASES: dict[str, dict[str, str]] = {
    "kind": {kind: f"a photo of a {kind}" for kind in KINDS},
    "hair": {"bald": "bald head"}
    | {f"{style} {colour}": f"{style} {colour} hair" for style in HAIR_STYLES[1:] for colour in HAIR_COLOURS},
    "beard": {beard: _BEARD_PHRASES[beard] for beard in BEARDS},
    "expression": {expression: f"{expression} face" for expression in EXPRESSIONS},
    "turn": {turn: f"facing {turn}" for turn in TURNS},
    "clothes": {f"{colour} {garment}": f"{colour} {garment}" for garment in GARMENTS for colour in COLOURS},
    "background": {f"{colour} {place}": f"{colour} {place} background" for place in PLACES for colour in COLOURS},
    "light": {light: f"{light} light" for light in LIGHTS},
}
_MEANING = {phrase: (name, value) for name, values in PHRASES.items() for value, phrase in values.items()}

# Every word of every caption; a tokenizer needs nothing else but the comma.
VOCABULARY = sorted({word for phrase in _MEANING for word in phrase.split()})


def describe(attributes: Attributes) -> str:
    """The caption of these attributes; whatever is not given is not said."""
    return ", ".join(PHRASES[name][attributes[name]] for name in PHRASES if name in attributes)


def understand(caption: str) -> Attributes:
    """The attributes a caption speaks of: the inverse of `describe`."""
    unknown = [phrase for phrase in caption.split(", ") if phrase not in _MEANING]
    if unknown:
        raise ValueError(f"{unknown} says nothing in the miniature world; phrases look like {next(iter(_MEANING))!r}.")
    return dict(_MEANING[phrase] for phrase in caption.split(", "))


def mirrored(attributes: Attributes) -> Attributes:
    """The attributes of the same photo flipped left to right."""
    opposite = {"left": "right", "right": "left"}
    return {name: opposite.get(value, value) if name == "turn" else value for name, value in attributes.items()}
