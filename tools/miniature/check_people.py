"""Are the people of the miniature world people? Detection and verification, as measured, in one JSON.

python -m tools.miniature.check_people --second-opinion
"""

import argparse
import pathlib

import numpy as np
from PIL import Image
from tqdm import tqdm

from metalora.measure.verification import verify

from .faces import SURE, DlibReader, Face, FaceReader, found_share
from .people import KINDS, SPLITS, WORLD_SEED, person
from .photo import photo
from .photos import write_report
from .render import HEAD, renderer_of

SHOWN = 16  # people of the sheet, a row each


def main() -> None:
    split = SPLITS["check"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=split.people)
    parser.add_argument("--photos", type=int, default=split.photos, help="of each person")
    parser.add_argument("--second-opinion", action="store_true", help="ask dlib's recognizer too")
    parser.add_argument("--cache", type=pathlib.Path, default=HEAD, help="prepared mesh")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("data/miniature/check_people.json"))
    arguments = parser.parse_args()
    renderer, reader = renderer_of(arguments.cache), FaceReader()
    second = DlibReader() if arguments.second_opinion else None
    faces, others, rows = [], [], []
    for number in tqdm(split.numbers[: arguments.people], desc="people"):
        who = person(number)
        figure = renderer.figure(who)
        pictures = [renderer.render(who, figure, photo(who, index)) for index in range(arguments.photos)]
        faces.append([reader.read(picture) for picture in pictures])
        rows += [np.hstack(pictures)] if len(rows) < SHOWN else []
        if second:
            seen = zip(pictures, faces[-1], strict=True)
            others.append([second.read(picture, face).embedding for picture, face in seen if face])
    report = {"people": len(faces), "photos_each": arguments.photos, "size": renderer.size, "seed": WORLD_SEED}
    embeddings = [[face.embedding for face in photos if face] for photos in faces]
    report |= detection([face for photos in faces for face in photos], renderer.size) | recognition(embeddings)
    report["by_kind"] = {kind: recognition(embeddings[first::2]) for first, kind in enumerate(KINDS)}
    report["passes"] = {
        "found at 0.9 >= 0.98": report["found_at_0.9"] >= 0.98,
        "auc >= 0.999": report["auc"] >= 0.999,
        "eer <= 0.01": report["eer"] <= 0.01,
        "people >= 100": report["people"] >= 100,
    }
    if second:
        report["second_opinion"] = recognition(others)
        report["passes"]["second opinion's auc >= 0.99"] = report["second_opinion"]["auc"] >= 0.99
    write_report(report, arguments.out)
    Image.fromarray(np.vstack(rows)).save(arguments.out.with_suffix(".png"))


def detection(every: list[Face | None], size: int) -> dict[str, float]:
    heights = [face.box.height / size for face in every if face]
    return {
        "images": len(every),
        "found_at_0.6": found_share(every),
        "found_at_0.9": found_share(every, SURE),
        "face_height_of_photo": np.percentile(heights, [0, 5, 50, 95, 100]).round(4).tolist(),
    }


def recognition(by_person: list[list[np.ndarray]]) -> dict[str, float]:
    """Over every face that was found at all: a lost face is counted by `detection`, not here."""
    embeddings = np.array([embedding for photos in by_person for embedding in photos])
    people = np.array([number for number, photos in enumerate(by_person) for _ in photos])
    cosines, same = embeddings @ embeddings.T, people[:, None] == people
    pairs = np.triu_indices(len(people), 1)
    scores, genuine = cosines[pairs], same[pairs]
    found = verify(scores, genuine)
    np.fill_diagonal(cosines, np.nan)
    names = np.unique(people)
    likeness = np.stack([np.nanmean(cosines[:, people == name], axis=1) for name in names])
    return {
        "genuine_mean": round(found.genuine_mean, 4),
        "genuine_sd": round(float(scores[genuine].std()), 4),
        "impostor_mean": round(found.impostor_mean, 4),
        "impostor_sd": round(float(scores[~genuine].std()), 4),
        "auc": round(found.auc, 5),
        "eer": round(found.eer, 5),
        "rank_1": round(float((names[likeness.argmax(0)] == people).mean()), 4),  # by each person's other photos
    }


if __name__ == "__main__":
    main()
