"""Does the autoencoder keep faces? PSNR on unseen people; SFace of reconstructions against their other photos.

python -m tools.miniature.check_autoencoder --photos data/miniature/validation --autoencoder data/.../vae
"""

import argparse
import pathlib

import numpy as np
from diffusers import AutoencoderKL

from .autoencoder import reconstructed
from .faces import SURE, Face, FaceReader
from .photos import read_shards, write_report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=pathlib.Path, required=True, help="shards of people it never saw")
    parser.add_argument("--autoencoder", type=pathlib.Path, required=True, help="the trained one's `vae` folder")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("data/miniature/check_autoencoder.json"))
    arguments = parser.parse_args()
    photos, reader = read_shards(arguments.photos), FaceReader()
    _, made, scores = reconstructed(AutoencoderKL.from_pretrained(arguments.autoencoder).eval(), photos.pixels)
    real_faces = [reader.read(picture) for picture in photos.pixels.permute(0, 2, 3, 1).numpy()]
    made_faces = [reader.read(picture) for picture in made]
    report = {"photos": len(photos), "people": len(set(photos.people.tolist()))}
    report |= {"psnr_mean": round(float(scores.mean()), 3), "psnr_worst": round(float(scores.min()), 3)}
    report["found_at_0.9"] = round(float(np.mean([face is not None and face.score >= SURE for face in made_faces])), 4)
    genuine, impostor = cross_means(real_faces, real_faces, photos.people)
    kept, _ = cross_means(made_faces, real_faces, photos.people)
    report |= {"genuine_mean": genuine, "impostor_mean": impostor, "reconstruction_mean": kept}
    report["kept"] = round(kept / genuine, 4)
    report["passes"] = {"psnr >= 30": report["psnr_mean"] >= 30, "kept >= 0.9": report["kept"] >= 0.9}
    write_report(report, arguments.out)


def cross_means(some: list[Face | None], others: list[Face | None], people: np.ndarray) -> tuple[float, float]:
    """Mean cosine of `some` against OTHER photos of (the same person, different people).

    Lost faces are left out; if all are lost, nothing was kept: 0.
    """
    if not any(some):
        return 0.0, 0.0
    rows = np.array([face is not None for face in some])
    columns = np.array([face is not None for face in others])
    scores = np.stack([f.embedding for f in some if f]) @ np.stack([f.embedding for f in others if f]).T
    same = people[rows][:, None] == people[columns][None]
    itself = np.flatnonzero(rows)[:, None] == np.flatnonzero(columns)[None]
    return round(float(scores[same & ~itself].mean()), 4), round(float(scores[~same].mean()), 4)


if __name__ == "__main__":
    main()
