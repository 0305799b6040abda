"""Does the miniature's FLUX draw faces, and different ones? Against real renders of the same captions.

python -m tools.miniature.check_flow --pipeline data/miniature/guided/pipeline --photos data/miniature/validation

The first 48 pictures, none left out, are a sheet beside the report. All are kept as a shard, with what their prompts
asked for: `check_clip --photos` on that folder says whether they show it.
"""

import argparse
import pathlib

import numpy as np
import torch
from diffusers import FluxPipeline

from metalora.measure.verification import verify

from .captions import describe
from .faces import SURE, DlibReader, FaceReader, Faces, compared, found_share
from .flow_model import draw
from .photos import read_shards, save_sheet, write_report, write_shard

NEAR = 0.03  # how close the similarity of drawn strangers must come to that of real ones


def main() -> None:
    arguments = _parser().parse_args()
    photos, reader = read_shards(arguments.photos), FaceReader()
    chosen = np.random.default_rng(0).permutation(len(photos))[: arguments.images]
    asked, owners = [photos.attributes[index] for index in chosen], photos.people[chosen]
    pipeline = FluxPipeline.from_pretrained(arguments.pipeline, torch_dtype=torch.float32).to(arguments.device)
    how = {"steps": arguments.steps, "guidance": arguments.guidance}
    prompts, size = [describe(one) for one in asked], photos.pixels.shape[-1]
    drawn = draw(pipeline, prompts, size, **how, two_passes=arguments.two_passes)
    write_shard(arguments.drawn / "drawn.npz", drawn, range(len(drawn)), asked)  # every picture a person of its own
    pictures = {"drawn": drawn, "real": photos.pixels[torch.from_numpy(chosen)].permute(0, 2, 3, 1).numpy()}
    faces = {kind: [reader.read(picture) for picture in shown] for kind, shown in pictures.items()}
    # Pictures of one person's captions are no strangers, drawn or real: they were asked for alike.
    report = {"images": len(drawn), **how} | {kind: figures(seen, owners) for kind, seen in faces.items()}
    if arguments.second_opinion:
        report["second_opinion"] = second_opinions(pictures, faces, owners)
    strangers = [report[kind]["strangers"] for kind in ("drawn", "real")]
    report["passes"] = {
        "images >= 200": report["images"] >= 200,
        "found at 0.9 >= 0.98": report["drawn"]["found_at_0.9"] >= 0.98,
        f"strangers within {NEAR}": None not in strangers and abs(strangers[0] - strangers[1]) <= NEAR,
    }
    write_report(report, arguments.out)
    save_sheet(drawn[:48], 8, arguments.out.with_suffix(".png"))


def figures(faces: Faces, people: np.ndarray) -> dict[str, float | None]:
    """How often a face is found, and the mean similarity of faces of different people (None of fewer than two)."""
    cosines, same = compared(faces, faces, people)
    strangers = round(float(cosines[~same].mean()), 4) if len(cosines) else None
    return {"found_at_0.9": found_share(faces, SURE), "strangers": strangers}


def second_opinions(pictures: dict[str, np.ndarray], faces: dict[str, Faces], people: np.ndarray) -> dict[str, dict]:
    """Of drawn and of real pictures: how often dlib finds a face, and how often it takes strangers for one person.

    It does at the similarity where it errs as often either way on the real ones.
    """
    dlib, pairs = DlibReader(), {}
    for kind, shown in pictures.items():
        seen = [face and dlib.read(picture, face) for picture, face in zip(shown, faces[kind], strict=True)]
        pairs[kind] = compared(seen, seen, people)
    cosines, same = pairs["real"]
    threshold = np.quantile(cosines[~same], 1 - verify(cosines, same).eer)
    return {
        kind: {
            "found": round(float(np.mean([dlib.finds(picture) for picture in pictures[kind]])), 4),
            "strangers_taken_for_one": round(float((cosines[~same] >= threshold).mean()), 4),
        }
        for kind, (cosines, same) in pairs.items()
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipeline", type=pathlib.Path, required=True, help="folder with model_index.json")
    parser.add_argument("--photos", type=pathlib.Path, required=True, help="shards of people it never saw")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--guidance", type=float, default=2.5)
    parser.add_argument("--two-passes", action="store_true", help="guidance with an empty prompt: not distilled yet")
    parser.add_argument("--second-opinion", action="store_true", help="ask dlib too")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--drawn", type=pathlib.Path, default=pathlib.Path("data/miniature/drawn"), help="kept pictures"
    )
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("data/miniature/check_flow.json"))
    return parser


if __name__ == "__main__":
    main()
