"""Does the autoencoder keep faces? PSNR on unseen people; SFace of reconstructions against their other photos.

python -m tools.miniature.check_autoencoder --photos data/miniature/validation --autoencoder data/.../vae
"""

import argparse
import pathlib

from diffusers import AutoencoderKL

from .autoencoder import reconstructed
from .faces import SURE, FaceReader, Faces, compared, found_share
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
    kept_faces = [reader.read(picture) for picture in made]
    report = {"photos": len(photos), "people": len(set(photos.people.tolist()))}
    report |= {"psnr_mean": round(float(scores.mean()), 3), "psnr_worst": round(float(scores.min()), 3)}
    report["found_at_0.9"] = found_share(kept_faces, SURE)

    def mean(faces: Faces, one_person: bool) -> float:
        cosines, same = compared(faces, real_faces, photos.people)
        chosen = cosines[same == one_person]
        return round(float(chosen.mean()), 4) if len(chosen) else 0.0  # where every face is lost, nothing was kept

    report |= {"genuine_mean": mean(real_faces, True), "impostor_mean": mean(real_faces, False)}
    report["reconstruction_mean"] = mean(kept_faces, True)
    report["kept"] = round(report["reconstruction_mean"] / report["genuine_mean"], 4)
    report["passes"] = {"psnr >= 30": report["psnr_mean"] >= 30, "kept >= 0.9": report["kept"] >= 0.9}
    write_report(report, arguments.out)


if __name__ == "__main__":
    main()
