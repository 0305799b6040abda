"""Everything about one photo that is not the person: pose, expression, light, place, clothes and framing."""

from dataclasses import dataclass

import numpy as np

from .captions import EXPRESSIONS, GARMENTS, LIGHTS, PLACES, Attributes
from .palette import COLOURS, varied
from .people import WORLD_SEED, Person

# Facial actions at full strength; each photo plays them a little stronger or weaker.
ACTIONS: dict[str, dict[str, float]] = {
    "neutral": {},
    "smiling": {"mouthSmile": 0.85, "cheekSquint": 0.30, "mouthDimple": 0.25},
    "laughing": {"mouthSmile": 0.90, "cheekSquint": 0.45, "jawOpen": 0.40, "mouthUpperUp": 0.55},
    "surprised": {"browInnerUp": 0.85, "browOuterUp": 0.75, "eyeWide": 0.75, "jawOpen": 0.50, "mouthFunnel": 0.25},
    "frowning": {"browDown": 0.95, "mouthFrown": 0.75, "mouthPress": 0.35, "noseSneer": 0.20},
}
ONE_SIDED = ("browInnerUp", "jawOpen", "mouthFunnel")  # actions that anny does not split into left and right


@dataclass(frozen=True, kw_only=True)
class Light:
    direction: np.ndarray  # [3] towards the main light
    key: np.ndarray  # [3] its colour
    fill_direction: np.ndarray
    fill: np.ndarray
    ambient: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Photo:
    attributes: Attributes
    actions: dict[str, float]  # anny's facial actions
    yaw: float  # degrees; positive turns the face to the viewer's right
    pitch: float
    roll: float
    gaze: tuple[float, float]
    light: Light
    place: str
    place_colour: np.ndarray  # [3] light
    place_seed: float
    garment: str
    cloth: np.ndarray  # [3] light
    stripe: np.ndarray  # [3] light
    half_width: float  # half of what the frame shows, in face units
    shift: tuple[float, float]  # of the face in the frame, face units


def photo(person: Person, index: int, seed: int = WORLD_SEED) -> Photo:
    """Photo `index` of a person: the same one for everybody who asks."""
    return sample_photo(person, np.random.default_rng([seed, person.number, 2, index]))


def sample_photo(person: Person, rng: np.random.Generator) -> Photo:
    """A photo of this person in random circumstances."""
    expression = str(rng.choice(EXPRESSIONS, p=[0.34, 0.24, 0.16, 0.13, 0.13]))
    turn = str(rng.choice(["left", "front", "right"], p=[0.27, 0.46, 0.27]))
    yaw = {"left": -1, "front": 0, "right": 1}[turn] * rng.uniform(13, 26) + (turn == "front") * rng.uniform(-7, 7)
    place, place_colour = str(rng.choice(PLACES)), str(rng.choice(list(COLOURS)))
    garment, cloth_colour = str(rng.choice(GARMENTS)), str(rng.choice(list(COLOURS)))
    light = str(rng.choice(LIGHTS, p=[0.4, 0.2, 0.2, 0.2]))
    hair = person.hair
    attributes = {
        "kind": person.kind,
        "hair": "bald" if hair.style == "bald" else f"{hair.style} {hair.colour_name}",
        "expression": expression,
        "turn": turn,
        "clothes": f"{cloth_colour} {garment}",
        "background": f"{place_colour} {place}",
        "light": light,
    }
    if person.kind == "man":
        attributes["beard"] = person.beard.name
    return Photo(
        attributes=attributes,
        actions=_actions(rng, expression),
        yaw=float(yaw),
        pitch=float(np.clip(rng.normal() * 5, -11, 11)),
        roll=float(np.clip(rng.normal() * 2.5, -6, 6)),
        gaze=(float(rng.uniform(-0.10, 0.10) - yaw / 140), float(rng.uniform(-0.05, 0.05))),
        light=_light(rng, light),
        place=place,
        place_colour=varied(place_colour, rng),
        place_seed=float(rng.uniform(1, 99)),
        garment=garment,
        cloth=varied(cloth_colour, rng),
        stripe=varied("white" if cloth_colour not in ("white", "grey", "yellow") else "black", rng),
        half_width=float(rng.uniform(2.45, 3.1)),
        shift=(float(rng.uniform(-0.25, 0.25)), float(rng.uniform(-0.2, 0.2))),
    )


def _actions(rng, expression: str) -> dict[str, float]:
    strength = rng.uniform(0.70, 0.95)
    actions: dict[str, float] = {}
    for name, value in ACTIONS[expression].items():
        for side in ("",) if name in ONE_SIDED else ("Left", "Right"):
            actions[name + side] = value * strength * (1 + rng.normal() * 0.05)
    return actions


def _light(rng, name: str) -> Light:
    azimuth, elevation = np.radians(rng.uniform(-40, 40)), np.radians(rng.uniform(15, 45))
    key, fill, ambient, tint = rng.uniform(0.80, 1.05), rng.uniform(0.22, 0.38), rng.uniform(0.36, 0.48), np.ones(3)
    if name == "side":
        azimuth, elevation = np.radians(rng.choice([-1, 1]) * rng.uniform(55, 72)), np.radians(rng.uniform(5, 25))
        key, fill, ambient = rng.uniform(1.35, 1.6), rng.uniform(0.06, 0.15), rng.uniform(0.22, 0.30)
    elif name == "warm":
        tint = np.array([1.18, 0.99, 0.74])
    elif name == "cold":
        tint = np.array([0.83, 0.98, 1.17])
    direction = np.array([np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)])
    fill_direction = np.array([-np.sin(azimuth) * 0.8, 0.1, 0.6])
    return Light(
        direction=direction,
        key=key * tint,
        fill_direction=fill_direction / np.linalg.norm(fill_direction),
        fill=fill * tint**0.5,
        ambient=ambient * tint**0.7,
    )
