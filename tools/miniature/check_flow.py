"""Does the miniature's FLUX draw faces, and different ones? Against real renders of the same captions.

python -m tools.miniature.check_flow --pipeline data/miniature/guided/pipeline --photos data/miniature/validation

The first 48 pictures, none left out, are a sheet beside the report. All are kept as a shard, with what their prompts
asked for: `check_clip --photos` on that folder says whether they show it.
"""

import argparse
import json
import pathlib

import numpy as np
import torch
from diffusers import FluxPipeline
from PIL import Image
from tqdm import tqdm

from metalora.measure.verification import verify

from .captions import Attributes, describe
from .faces import SURE, DlibReader, Face, FaceReader
from .photos import read_shards, to_pixels, to_signal, write_report
from .text import T5_TOKENS

NEAR = 0.03  # how close the similarity of drawn strangers must come to that of real ones
BATCH = 16


def main() -> None:
    arguments = _parser().parse_args()
    photos, reader = read_shards(arguments.photos), FaceReader()
    chosen = np.random.default_rng(0).permutation(len(photos))[: arguments.images]
    prompts = [describe(photos.attributes[index]) for index in chosen]
    pipeline = FluxPipeline.from_pretrained(arguments.pipeline, torch_dtype=torch.float32).to(arguments.device)
    drawn = draw(pipeline, prompts, photos.pixels.shape[-1], arguments)
    real = to_pixels(to_signal(photos.pixels[torch.from_numpy(chosen)]))
    owners = photos.people[chosen]
    keep(drawn, [photos.attributes[index] for index in chosen], arguments.drawn)
    report = {"images": len(prompts), "steps": arguments.steps, "guidance": arguments.guidance}
    faces = {"drawn": [reader.read(picture) for picture in drawn], "real": [reader.read(picture) for picture in real]}
    # Pictures of one person's captions are no strangers, drawn or real: they were asked for alike.
    report |= {kind: figures(seen, owners) for kind, seen in faces.items()}
    if arguments.second_opinion:
        opinions = second_opinions((drawn, faces["drawn"]), (real, faces["real"]), owners)
        report["second_opinion"] = dict(zip(("drawn", "real"), opinions, strict=True))
    strangers = [report[kind]["strangers"] for kind in ("drawn", "real")]
    report["passes"] = {
        "images >= 200": report["images"] >= 200,
        "found at 0.9 >= 0.98": report["drawn"]["found_at_0.9"] >= 0.98,
        f"strangers within {NEAR}": None not in strangers and abs(strangers[0] - strangers[1]) <= NEAR,
    }
    write_report(report, arguments.out)
    Image.fromarray(sheet(drawn)).save(arguments.out.with_suffix(".png"))


def draw(pipeline: FluxPipeline, prompts: list[str], size: int, arguments: argparse.Namespace) -> np.ndarray:
    """[n, size, size, 3] bytes; picture i has seed i, whatever the batches are."""
    pipeline.set_progress_bar_config(disable=True)
    in_one, in_two = (1.0, arguments.guidance) if arguments.two_passes else (arguments.guidance, 1.0)
    pictures = []
    for start in tqdm(range(0, len(prompts), BATCH), desc="batches"):
        some = prompts[start : start + BATCH]
        seeds = [torch.Generator().manual_seed(start + index) for index in range(len(some))]
        made = pipeline(
            some,
            height=size,
            width=size,
            num_inference_steps=arguments.steps,
            max_sequence_length=T5_TOKENS,
            generator=seeds,
            output_type="np",
            guidance_scale=in_one,
            true_cfg_scale=in_two,
            negative_prompt=[""] * len(some) if arguments.two_passes else None,
        )
        pictures.append((made.images * 255).round().astype(np.uint8))
    return np.concatenate(pictures)


def keep(drawn: np.ndarray, asked: list[Attributes], folder: pathlib.Path) -> None:
    """As `read_shards` reads it; every picture is a person of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    captions = [json.dumps(one) for one in asked]
    np.savez_compressed(folder / "drawn.npz", photos=drawn, people=np.arange(len(drawn)), captions=captions)


def figures(faces: list[Face | None], people: np.ndarray) -> dict[str, float | None]:
    """How often a face is found, and the mean similarity of faces of different people (None of fewer than two)."""
    found = np.array([face is not None for face in faces])
    sure = [face is not None and face.score >= SURE for face in faces]
    result = {"found_at_0.9": round(float(np.mean(sure)), 4), "strangers": None}
    if found.sum() > 1:
        embeddings, owners = np.stack([face.embedding for face in faces if face]), people[found]
        scores = embeddings @ embeddings.T
        result["strangers"] = round(float(scores[owners[:, None] != owners[None]].mean()), 4)
    return result


def second_opinions(
    drawn: tuple[np.ndarray, list[Face | None]], real: tuple[np.ndarray, list[Face | None]], people: np.ndarray
) -> list[dict[str, float]]:
    """Of drawn and of real pictures: how often dlib finds a face, and how often it takes strangers for one person.

    It does at the similarity where it errs as often either way on the real ones.
    """
    dlib, found, scores, same = DlibReader(), [], [], []
    for pictures, faces in (drawn, real):
        found.append(np.mean([dlib.finds(picture) for picture in pictures]))
        seen = np.stack([dlib.embed(picture, face) for picture, face in zip(pictures, faces, strict=True) if face])
        owners = people[[face is not None for face in faces]]
        scores.append(seen @ seen.T)
        same.append(owners[:, None] == owners)
    pairs = ~np.eye(len(scores[1]), dtype=bool)
    error = verify(scores[1][pairs], same[1][pairs]).eer
    threshold = np.quantile(scores[1][~same[1]], 1 - error)
    return [
        {
            "found": round(float(share), 4),
            "strangers_taken_for_one": round(float((cosines[~one] >= threshold).mean()), 4),
        }
        for share, cosines, one in zip(found, scores, same, strict=True)
    ]


def sheet(pictures: np.ndarray, columns: int = 8, rows: int = 6) -> np.ndarray:
    """The first of the pictures, none left out: [h, w, 3]."""
    count = min(columns * rows, len(pictures) // columns * columns) or len(pictures)
    lines = [np.concatenate(list(pictures[start : start + columns]), axis=1) for start in range(0, count, columns)]
    return np.concatenate(lines)


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
