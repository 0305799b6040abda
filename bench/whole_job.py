"""The whole job, from a photo to a LoRA file and images made with it: seconds and share of each phase.

    python -m bench.whole_job                                     # the portrait and the miniature that ship
    python -m bench.whole_job --photo ada.jpg --backbone flux-dev --device cuda --compile --out job.json

Nothing is cached between runs. The peak of memory is the whole process's on the CPU and the allocator's on a GPU.
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import torch

from metalora.backbones.load import load_backbone, speed_of
from metalora.backbones.pipeline import PipelineBackbone
from metalora.backbones.speed import attention_that_runs
from metalora.config import METHODS, CropConfig, GenerateConfig, PersonalizeConfig, Phase, SpeedConfig
from metalora.flags import add_options
from metalora.jobs import Job
from metalora.jobs.generate import generate_images
from metalora.jobs.personalize import personalize_photos
from metalora.settings import config_of
from metalora.store.cache import Cache
from metalora.store.images import demo_portrait

IMAGES = 4
Times = dict[str, tuple[float, float]]  # (seconds, the processor's seconds): the second hardly change on a busy machine


def main() -> None:
    arguments = parsed()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        report = measured(arguments, Path(folder))
    print(table(report))
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")


def measured(arguments: argparse.Namespace, folder: Path) -> dict:
    """Personalize and generate, as the command line does."""
    backbone = load_backbone(arguments.backbone, device=arguments.device, precision=arguments.precision)
    backbone.speed = speed_of(config_of(SpeedConfig, vars(arguments)))
    given = {"method": arguments.method, "class_name": "woman"} | (
        {"steps": arguments.steps} if arguments.steps else {}
    )
    config, crops = (config_of(kind, given, arguments.backbone) for kind in (PersonalizeConfig, CropConfig))
    cache, lora = Cache(folder / "cache"), folder / "person.safetensors"
    training = personalize_photos(
        backbone, [arguments.photo], lora, config, crops, meta_down=arguments.meta_down, cache=cache
    )
    phases = timed(training, "reading the photo, finding the face", "validation, saving")
    images = config_of(GenerateConfig, {"images_per_prompt": IMAGES}, arguments.backbone)
    drawing = generate_images(
        backbone, ["a photo of a woman outdoors"], folder / "images", images, lora=lora, compare=False, cache=cache
    )
    drawn = timed(drawing, "reading the LoRA", "saving")
    return {
        "backbone": backbone.name,
        "method": config.method,
        "steps": config.steps,
        "resolution": crops.resolution,
        "run": str(backbone.speed),
        "attention": attention_that_runs(backbone.speed, backbone.device, backbone.dtype),
        "machine": f"{backbone.device}, {torch.get_num_threads()} threads, torch {torch.__version__}",
        "seconds": {name: round(clock, 3) for name, (clock, _) in phases.items()},
        "processor_seconds": {name: round(worked, 3) for name, (_, worked) in phases.items()},
        "in_all": summed(phases),
        "an_image": [part / IMAGES for part in summed(drawn)],
        "peak_mb": peak(backbone),
        "file_bytes": {path.name: path.stat().st_size for path in sorted(folder.glob("*.safetensors"))},
    }


def timed(job: Job, first: str, last: str) -> Times:
    """Of each phase: before its first word it is `first`, after a phase's last step `last`."""
    found: Times = {}
    name, began = first, (time.perf_counter(), time.process_time())

    def turn_to(following: str) -> None:
        nonlocal name, began
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now, before = (time.perf_counter(), time.process_time()), found.get(name, (0.0, 0.0))
        found[name] = (before[0] + now[0] - began[0], before[1] + now[1] - began[1])
        name, began = following, now

    present = first
    for sign in job:
        if isinstance(sign, Phase):
            present = sign.text.split(":")[0]
            turn_to(present)
        else:
            turn_to(last if sign.index == sign.total else present)
    turn_to(last)
    return found


def summed(phases: Times) -> list[float]:
    """[seconds, the processor's seconds] over all phases."""
    return [sum(parts) for parts in zip(*phases.values(), strict=True)]


def peak(backbone: PipelineBackbone) -> float:
    """MB."""
    if backbone.device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def table(report: dict) -> str:
    """For a terminal."""
    what = f"{report['backbone']}, {report['method']}, {report['steps']} steps at {report['resolution']} px"
    lines = [f"{what}; {report['run']}", f"{'':38}{'seconds':>10}{'processor':>12}{'share':>9}"]
    whole = report["in_all"]
    rows = {name: [took, report["processor_seconds"][name]] for name, took in report["seconds"].items()}
    rows |= {"photo to file": whole, "an image with the LoRA": report["an_image"]}
    lines += [f"{name:38}{row[0]:10.2f}{row[1]:12.2f}{100 * row[1] / whole[1]:8.1f} %" for name, row in rows.items()]
    lines.append(f"{'peak memory, MB':38}{report['peak_mb']:10.0f}")
    lines += [f"{name + ', kB':38}{size / 1e3:10.1f}" for name, size in report["file_bytes"].items()]
    return "\n".join(lines)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photo", type=Path, default=demo_portrait())
    parser.add_argument("--backbone", default="miniature")
    parser.add_argument("--method", default="meta-lora", choices=METHODS)
    parser.add_argument("--meta-down", default="random", help="a Meta-Down file, or random, which costs the same")
    parser.add_argument("--steps", type=int, help="of training (default: the backbone's)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    parser.add_argument("--threads", type=int, help="of the CPU (default: torch's choice)")
    parser.add_argument("--out", type=Path, metavar="JSON")
    add_options(parser, SpeedConfig)
    return parser.parse_args()


if __name__ == "__main__":
    main()
