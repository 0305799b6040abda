"""Make what ships: the pipeline in half precision, a card, and the facts that the card states.

python -m tools.miniature.export --made data/miniature --pipeline data/miniature/guided/pipeline
"""

import argparse
import json
import pathlib
import shutil
import tempfile

import torch
from diffusers import AutoencoderKL, FluxPipeline
from jinja2 import Template
from safetensors.torch import load_file, save_file

from metalora.store.files import digest, write_bytes

from .people import SPLITS, WORLD_SEED

WEIGHTS = ("transformer", "vae", "text_encoder", "text_encoder_2")
LARGEST = 60e6  # bytes of all that ships, the small CLIP and Meta-Downs included
TRAININGS = {  # what each training says of itself, if it was done; "before" is of the weights that `flow` began with
    "autoencoder": "autoencoder/facts.json",
    "before": "flow/before.json",
    "flow": "flow/facts.json",
    "guided": "guided/facts.json",
}
CARD = pathlib.Path(__file__).with_name("card.md.jinja")  # the README of the shipped folder
CHECKS = ("check_people", "check_autoencoder", "check_flow", "check_prompts")  # JSON files of the checks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipeline", type=pathlib.Path, required=True, help="a finished training's `pipeline` folder")
    parser.add_argument(
        "--made", type=pathlib.Path, default=pathlib.Path("data/miniature"), help="trainings and checks"
    )
    parser.add_argument("--hardware", default="not said", help="what it was trained on, in words, for the card")
    parser.add_argument(
        "--autoencoder", type=pathlib.Path, help="a `vae` folder whose decoder has learned since (default: as it was)"
    )
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("metalora/data/miniature"))
    arguments = parser.parse_args()
    export(arguments.pipeline, arguments.out, arguments.autoencoder)
    facts = facts_of(arguments.made, arguments.out, arguments.hardware)
    write_bytes(arguments.out / "facts.json", (json.dumps(facts, indent=1) + "\n").encode())
    card = Template(CARD.read_text(encoding="utf-8"), trim_blocks=True, keep_trailing_newline=True).render(facts)
    write_bytes(arguments.out / "README.md", card.encode())
    total = sum(path.stat().st_size for path in arguments.out.rglob("*") if path.is_file())
    print(f"wrote {arguments.out}: {total / 1e6:.1f} MB")
    if total > LARGEST:
        raise SystemExit(f"That is more than the {LARGEST / 1e6:.0f} MB that may ship.")


def export(pipeline: pathlib.Path, out: pathlib.Path, autoencoder: pathlib.Path | None = None) -> None:
    """The same folder with 16-bit weights; whatever was at `out` is replaced at once, when all is written.

    `autoencoder` is one whose decoder alone has gone on learning since FLUX learned its latents.
    """
    half = FluxPipeline.from_pretrained(pipeline, torch_dtype=torch.float16)
    if autoencoder:
        newer = AutoencoderKL.from_pretrained(autoencoder, torch_dtype=torch.float16)
        for name, weight in newer.encoder.state_dict().items():
            if not torch.equal(weight, half.vae.encoder.state_dict()[name]):
                raise SystemExit(f"{autoencoder} has another encoder (its {name}) than the one FLUX has learned from.")
        half.vae = newer
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as temporary:
        finished = pathlib.Path(temporary, "pipeline")
        half.save_pretrained(finished)
        name_as_clip_does(finished / "text_encoder" / "model.safetensors")
        for path in finished.rglob("*.json"):
            forget_origin(path)
        if out.exists():
            shutil.rmtree(out)
        finished.rename(out)


def name_as_clip_does(weights: pathlib.Path) -> None:
    """transformers 5 leaves the first word of CLIP's own keys out, without which transformers 4 does not know them."""
    tensors = load_file(weights)
    if not any(name.startswith("text_model.") for name in tensors):
        save_file({f"text_model.{name}": tensor for name, tensor in tensors.items()}, weights, {"format": "pt"})


def forget_origin(path: pathlib.Path) -> None:
    """Diffusers writes where a model was loaded from: a place of this machine, which nobody else has.

    transformers 5 writes an empty list of special tokens, which transformers 4 cannot read.
    """
    settings = json.loads(path.read_text())
    unwanted = [name for name in ("_name_or_path", "extra_special_tokens") if name in settings]
    if isinstance(settings, dict) and any(settings[name] != {} for name in unwanted):
        path.write_text(json.dumps({k: v for k, v in settings.items() if k not in unwanted}, indent=2) + "\n")


def facts_of(made: pathlib.Path, shipped: pathlib.Path, hardware: str) -> dict:
    """What the trainings' and the checks' own files say, and the hash of every weight file."""
    weights = {name: next((shipped / name).glob("*.safetensors")) for name in WEIGHTS}
    return {
        "world_seed": WORLD_SEED,
        "splits": {name: {"people": len(split.numbers)} for name, split in SPLITS.items()},
        "hardware": hardware,
        "trainings": _read({name: made / path for name, path in TRAININGS.items()}),
        "checks": _read({name: made / f"{name}.json" for name in CHECKS}),
        "weights": {
            name: {"bytes": path.stat().st_size, "sha256": digest(path.read_bytes())} for name, path in weights.items()
        },
    }


def _read(paths: dict[str, pathlib.Path]) -> dict[str, dict]:
    return {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}


if __name__ == "__main__":
    main()
