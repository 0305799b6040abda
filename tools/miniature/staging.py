"""Where things are in a photo: the posed head, the camera and the main light. Numbers only, no OpenGL."""

import numpy as np

from .photo import Light, Photo

CAMERA_DISTANCE = 14.0  # face units; a portrait lens
LOOK_AT_Y = -0.45  # so that the shoulders are in the frame too
NECK = np.array([0.0, -1.6, -1.5])  # the head turns about this point


def posed(vertices: np.ndarray, height: np.ndarray, photo: Photo, rigid: float, free: float) -> np.ndarray:
    """Turn what is above height `free`, leave what is below `rigid`, and bend smoothly between."""
    share = np.clip((height - rigid) / (free - rigid), 0, 1)
    share = (share * share * (3 - 2 * share))[..., None]
    return vertices * (1 - share) + ((vertices - NECK) @ _rotation(photo).T + NECK) * share


def camera(photo: Photo) -> np.ndarray:
    """[4, 4]: face units to clip space."""
    focal, near, far = CAMERA_DISTANCE / photo.half_width, 5.0, 25.0
    view = np.eye(4)
    view[:3, 3] = photo.shift[0], photo.shift[1] - LOOK_AT_Y, -CAMERA_DISTANCE
    depth = -(far + near) / (far - near), -2 * far * near / (far - near)
    return np.array([[focal, 0, 0, 0], [0, focal, 0, 0], [0, 0, *depth], [0, 0, -1, 0]]) @ view


def light_camera(direction: np.ndarray) -> np.ndarray:
    """[4, 4]: face units to what the main light sees, for its shadows."""
    right = np.cross([0, 1, 0.01], direction)
    right /= np.linalg.norm(right)
    view = np.eye(4)
    view[:3, :3] = np.stack([right / 4.2, np.cross(direction, right) / 4.2, -direction / 6.0])
    view[:3, 3] = -view[:3, :3] @ np.array([0, -0.6, -0.8])
    return view


def on_the_wall(light: Light) -> np.ndarray:
    """[3]: the light's colour and level as it falls on what is behind the person."""
    level = 0.55 * light.key * max(0.35, light.direction[2]) + 0.3 * light.fill + 0.6 * light.ambient
    return np.clip(level, 0.35, 1.15)


def _rotation(photo: Photo) -> np.ndarray:
    yaw, pitch, roll = np.radians([photo.yaw, photo.pitch, photo.roll])
    about_z = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    about_y = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    return about_z @ about_y @ about_x
