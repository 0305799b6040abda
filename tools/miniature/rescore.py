"""A finished benchmark run with its likeness measured by dlib's recognizer, for a second opinion on the frontier.

    pip install dlib-bin face-recognition-models
    python -m tools.miniature.rescore meta-lora plain-lora --out data/miniature/dlib
    metalora benchmark frontier data/miniature/dlib/meta-lora --curve data/miniature/dlib/plain-lora

Writes OUT/<run>/results.json, in which `held_out` is the mean cosine of dlib's embeddings (of the face that YuNet is
surest of) to the person's held-out photos; an image without a face counts as having none. All else is the run's.
"""

import argparse
import functools
import json
import pathlib

import numpy as np
from PIL import Image
from tqdm import tqdm

from metalora.jobs.benchmark.plan_file import located, read_plan
from metalora.store.files import write_bytes
from metalora.store.manifest import read_manifest

from .faces import DlibReader, FaceReader


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=pathlib.Path, nargs="+", metavar="RUN", help="folders of finished runs")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder for the rescored runs")
    arguments = parser.parse_args()
    faces, dlib = FaceReader(), DlibReader()

    @functools.cache  # a held-out photo is asked for by every image of its person
    def embedding(path: pathlib.Path) -> np.ndarray | None:
        picture = np.asarray(Image.open(path).convert("RGB"))
        face = faces.read(picture)
        return None if face is None else dlib.read(picture, face).embedding

    for run in arguments.runs:
        results = json.loads((run / "results.json").read_text())
        manifest = read_manifest(pathlib.Path(located(read_plan(run).manifest, run)), look=False)
        photos = {person.name: [photo.path for photo in person.held_out] for person in manifest.people}
        images = [image for variant in results["variants"] for image in variant["images"]]
        for image in tqdm(images, desc=run.name, unit="image"):
            own = embedding(run / image["path"])
            real = [one for one in map(embedding, photos[image["identity"]]) if one is not None]
            image["held_out"] = None if own is None else float((np.stack(real) @ own).mean())
            image["faces"] = int(own is not None)
        write_bytes(arguments.out / run.name / "results.json", json.dumps(results).encode())
    print(f"wrote {len(arguments.runs)} runs to {arguments.out}")


if __name__ == "__main__":
    main()
