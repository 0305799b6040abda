"""The whole job, from a photo to a LoRA file and images made with it: seconds and share of each phase.

    python -m bench.whole_job                                     # the portrait and the miniature that ship
    python -m bench.whole_job --photo ada.jpg --backbone flux-dev --device cuda --compile

Nothing is cached between runs. The peak of memory is the whole process's on the CPU and the allocator's on a GPU.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import torch

from metalora.backbones.pipeline import PipelineBackbone, open_backbone
from metalora.cli import add_options
from metalora.config import METHODS, BaseConfig, CropConfig, GenerateConfig, PersonalizeConfig, Phase, SpeedConfig
from metalora.jobs import Job
from metalora.jobs.generate import generate_images
from metalora.jobs.personalize import personalize_photos
from metalora.settings import config_of
from metalora.store.cache import Cache
from metalora.store.images import demo_portrait

IMAGES = 4
Times = dict[str, tuple[float, float]]  # (seconds, the processor's seconds): the second hardly change on a busy machine


def main() -> None:
    """Personalize and generate as the command line does, and print what it took."""
    arguments = parsed()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    backbone = open_backbone(config_of(BaseConfig, vars(arguments)), config_of(SpeedConfig, vars(arguments)))
    given = {"method": arguments.method, "class_name": "woman"} | (
        {"steps": arguments.steps} if arguments.steps else {}
    )
    config, crops = (config_of(kind, given, arguments.backbone) for kind in (PersonalizeConfig, CropConfig))
    images = config_of(GenerateConfig, {"images_per_prompt": IMAGES}, arguments.backbone)
    print(f"{backbone.name}, {config.method}, {config.steps} steps at {crops.resolution} px; {backbone.speed}")
    print(f"{backbone.device}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as name:
        folder, cache, lora = Path(name), Cache(Path(name, "cache")), Path(name, "person.safetensors")
        training = personalize_photos(
            backbone, [arguments.photo], lora, config, crops, meta_down=arguments.meta_down, cache=cache
        )
        phases = timed(training, "reading the photo, finding the face", "validation, saving")
        drawing = generate_images(
            backbone, ["a photo of a woman outdoors"], folder / "images", images, lora=lora, compare=False, cache=cache
        )
        whole, drawn = summed(phases), summed(timed(drawing, "reading the LoRA", "saving"))
        rows = {**phases, "photo to file": whole, "an image with the LoRA": [part / IMAGES for part in drawn]}
        print(f"{'':38}{'seconds':>10}{'processor':>12}{'share':>9}")
        for phase, (took, worked) in rows.items():
            print(f"{phase:38}{took:10.2f}{worked:12.2f}{100 * worked / whole[1]:8.1f} %")
        print(f"{'peak memory, MB':38}{peak(backbone):10.0f}")
        for path in sorted(folder.glob("*.safetensors")):
            print(f"{path.name + ', kB':38}{path.stat().st_size / 1e3:10.1f}")


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
    add_options(parser, SpeedConfig)
    return parser.parse_args()


if __name__ == "__main__":
    main()
