"""Are the people of the miniature world people? Detection and verification, as measured, in one JSON.

python -m tools.miniature.check_people --out data/miniature/check.json
"""

import argparse
import pathlib

import numpy as np
from PIL import Image
from tqdm import tqdm

from metalora.measure.verification import auc, equal_error_rate

from .faces import SURE, DlibReader, Face, FaceReader, enlarged, pair_scores, rank_one
from .people import KINDS, SPLITS, WORLD_SEED, person
from .photo import photo
from .photos import write_report
from .renderer import Renderer

SHOWN = 16  # people of the sheet, a row each


def main() -> None:
    arguments = _parser().parse_args()
    renderer, reader = Renderer(arguments.cache, arguments.size), FaceReader()
    split = SPLITS["check"]
    people = [person(number) for number in split.numbers[: arguments.people]]
    second = DlibReader() if arguments.second_opinion else None
    faces, others, rows = [], [], []
    for who in tqdm(people, desc="people"):
        figure = renderer.figure(who)
        pictures = [renderer.render(who, figure, photo(who, index)) for index in range(arguments.photos)]
        faces.append([reader.read(picture) for picture in pictures])
        rows += [np.hstack(pictures)] if len(rows) < SHOWN else []
        if second:
            seen = zip(pictures, faces[-1], strict=True)
            others.append([second.embed(enlarged(picture), face.box) for picture, face in seen if face])
    report = {"people": len(people), "photos_each": arguments.photos, "size": arguments.size, "seed": WORLD_SEED}
    embeddings = [[face.embedding for face in photos if face] for photos in faces]
    report |= detection(faces) | recognition(embeddings)
    report["by_kind"] = {kind: recognition(embeddings[first::2]) for first, kind in enumerate(KINDS)}
    if second:
        report["second_opinion"] = recognition(others)
    report["passes"] = {
        "found at 0.9 >= 0.98": report["found_at_0.9"] >= 0.98,
        "auc >= 0.999": report["auc"] >= 0.999,
        "eer <= 0.01": report["eer"] <= 0.01,
        "people >= 100": report["people"] >= 100,
    }
    if second:
        report["passes"]["second opinion's auc >= 0.99"] = report["second_opinion"]["auc"] >= 0.99
    write_report(report, arguments.out)
    Image.fromarray(np.vstack(rows)).save(arguments.out.with_suffix(".png"))


def detection(faces: list[list[Face | None]]) -> dict[str, float]:
    every = [face for photos in faces for face in photos]
    heights = [face.height for face in every if face]
    return {
        "images": len(every),
        "found_at_0.6": _round(np.mean([face is not None and face.score >= 0.6 for face in every])),
        "found_at_0.9": _round(np.mean([face is not None and face.score >= SURE for face in every])),
        "face_height_of_photo": [_round(value) for value in np.percentile(heights, [0, 5, 50, 95, 100])],
    }


def recognition(by_person: list[list[np.ndarray]]) -> dict[str, float]:
    """Over every face that was found at all: a lost face is counted by `detection`, not here."""
    embeddings = np.array([embedding for photos in by_person for embedding in photos])
    people = np.array([number for number, photos in enumerate(by_person) for _ in photos])
    genuine, impostor = pair_scores(embeddings, people)
    return {
        "genuine_mean": _round(genuine.mean()),
        "genuine_sd": _round(genuine.std()),
        "impostor_mean": _round(impostor.mean()),
        "impostor_sd": _round(impostor.std()),
        "auc": round(auc(genuine, impostor), 5),
        "eer": round(equal_error_rate(genuine, impostor), 5),
        "rank_1": _round(rank_one(embeddings, people)),
    }


def _round(value: float) -> float:
    return round(float(value), 4)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=SPLITS["check"].people)
    parser.add_argument("--photos", type=int, default=SPLITS["check"].photos, help="of each person")
    parser.add_argument("--size", type=int, default=128, help="pixels per side")
    parser.add_argument("--second-opinion", action="store_true", help="ask dlib's recognizer too")
    parser.add_argument("--cache", type=pathlib.Path, default=pathlib.Path("data/miniature/head"), help="prepared mesh")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("data/miniature/check.json"))
    return parser


if __name__ == "__main__":
    main()
