"""A finished benchmark run with its likeness measured by dlib's recognizer, for a second opinion on the frontier.

    pip install dlib-bin face-recognition-models
    python -m tools.miniature.rescore meta-lora plain-lora --out data/miniature/dlib
    metalora benchmark frontier data/miniature/dlib/meta-lora --curve data/miniature/dlib/plain-lora

Writes OUT/<run>/results.json, in which `held_out` is the mean cosine of dlib's embeddings (of the face that YuNet is
surest of) to the person's held-out photos; an image without a face counts as having none. All else is the run's.
"""

import argparse
import json
import pathlib

import numpy as np
from PIL import Image
from tqdm import tqdm

from metalora.jobs.benchmark.plan_file import located, read_plan
from metalora.store.files import write_bytes
from metalora.store.manifest import read_manifest

from .faces import DlibReader, FaceReader, enlarged


class Likeness:
    """dlib's likeness of images to people, whose photos are embedded once."""

    def __init__(self) -> None:
        self.faces, self.dlib = FaceReader(), DlibReader()
        self.of_person: dict[str, np.ndarray] = {}

    def embedding(self, path: pathlib.Path) -> np.ndarray | None:
        """[128], unit length, or None without a face."""
        picture = np.asarray(Image.open(path).convert("RGB"))
        face = self.faces.read(picture)
        return None if face is None else self.dlib.embed(enlarged(picture), face.box)

    def to(self, image: pathlib.Path, identity: str, held_out: list[pathlib.Path]) -> float | None:
        """Mean cosine of an image to someone's held-out photos; None without a face."""
        if identity not in self.of_person:
            found = [self.embedding(path) for path in held_out]
            self.of_person[identity] = np.stack([one for one in found if one is not None])
        own = self.embedding(image)
        return None if own is None else float((self.of_person[identity] @ own).mean())


def main() -> None:
    arguments = _parser().parse_args()
    likeness = Likeness()
    for run in arguments.runs:
        results = json.loads((run / "results.json").read_text())
        manifest = read_manifest(pathlib.Path(located(read_plan(run).manifest, run)), look=False)
        photos = {person.name: [photo.path for photo in person.held_out] for person in manifest.people}
        images = [image for variant in results["variants"] for image in variant["images"]]
        for image in tqdm(images, desc=run.name, unit="image"):
            image["held_out"] = likeness.to(run / image["path"], image["identity"], photos[image["identity"]])
            image["faces"] = int(image["held_out"] is not None)
        write_bytes(arguments.out / run.name / "results.json", json.dumps(results).encode())
    print(f"wrote {len(arguments.runs)} runs to {arguments.out}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=pathlib.Path, nargs="+", metavar="RUN", help="folders of finished runs")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder for the rescored runs")
    return parser


if __name__ == "__main__":
    main()
