"""How fast does `metalora evaluate images` score a folder, and how much memory does it take meanwhile?

    python bench/evaluate_speed.py                 1,000 images of 512 x 512 pixels, two cores
    python bench/evaluate_speed.py --side 128      the size of the mini benchmark's own

The images are the photos of the mini benchmark, enlarged, as PNGs, each a little brighter or darker than the others.
Wall time depends on what else the machine does; the processor's seconds per image do not, so both are reported.
"""

import argparse
import json
import os
import platform
import resource
import tempfile
import time
from pathlib import Path

import onnxruntime
import psutil
import torch

from metalora.config import Step
from metalora.jobs.evaluate_images import evaluate_images
from metalora.method.crops import Box
from metalora.store.images import read_photo, resize_crop, save_image

BENCHMARK = Path(__file__).parents[1] / "metalora" / "data" / "mini_benchmark"
EVERY = 50  # images between two looks at the memory


def main() -> None:
    arguments = parsed()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        photos, reference = make_images(Path(folder), arguments.images, arguments.side)
        record = measured(Path(folder) / "images", photos, reference, arguments.faces)
    record |= {"images": arguments.images, "side": arguments.side, "faces": arguments.faces, "cores": arguments.cores}
    record["machine"] = {
        "processor": processor(),
        "load_before": arguments.load,
        "load_after": os.getloadavg()[0],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
    }
    show(record)
    if arguments.out:
        arguments.out.write_text(json.dumps(record, indent=1) + "\n")


def make_images(folder: Path, count: int, side: int) -> tuple[Path, Path]:
    """The images, one person's held-out photos, and their reference."""
    rows = [json.loads(line) for line in (BENCHMARK / "manifest.jsonl").read_text().splitlines()]
    pictures = [read_photo(BENCHMARK / row["path"]) for row in rows]
    for index in range(count):
        picture = pictures[index % len(pictures)] * (1 - 0.3 * index / count)
        large = resize_crop(picture, Box(0, 0, picture.shape[2], picture.shape[1]), side, side)
        path = folder / "images" / f"scene-{index}.png"
        path.parent.mkdir(exist_ok=True)
        save_image(large, path)
    identity = next(row["identity"] for row in rows if row["role"] == "held-out")
    own = [row for row in rows if row["identity"] == identity]
    (folder / "photos").mkdir()
    for row in own:
        if row["role"] == "held-out":
            (folder / "photos" / Path(row["path"]).name).symlink_to(BENCHMARK / row["path"])
    return folder / "photos", BENCHMARK / next(row["path"] for row in own if row["role"] == "reference")


def measured(images: Path, photos: Path, reference: Path, faces: str) -> dict:
    """Run the job as the command line does, watching the clocks and the memory."""
    process = psutil.Process()
    job, memory = evaluate_images(images, photos, reference, faces), []
    began, worked = time.perf_counter(), time.process_time()
    try:
        while True:
            sign = next(job)
            if isinstance(sign, Step) and sign.index % EVERY == 1:
                memory.append(round(process.memory_info().rss / 2**20))
    except StopIteration as end:
        report = end.value
    seconds, worked = time.perf_counter() - began, time.process_time() - worked
    return {
        "images_per_second": round(report.images / seconds, 2),
        "seconds": round(seconds, 1),
        "processor_ms_per_image": round(1000 * worked / report.images, 1),
        "cores_got": round(worked / seconds, 2),
        "faces_found": report.detection_rate,
        "memory_mb_over_time": memory,
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def processor() -> str:
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return names[0].split(":", 1)[1].strip() if names else platform.machine()


def show(record: dict) -> None:
    memory = record["memory_mb_over_time"]
    idle = record["images_per_second"] / record["cores_got"] * record["cores"]
    print(
        f"{record['images']} images of {record['side']} x {record['side']}, {record['faces']}, {record['cores']} cores"
    )
    print(f"{'images per second':34}{record['images_per_second']:8.1f}")
    print(f"{'of the cores it got':34}{record['cores_got']:8.2f}   of {record['cores']}")
    print(f"{'processor time per image, ms':34}{record['processor_ms_per_image']:8.1f}")
    print(f"{'the same with the cores alone, about':34}{idle:6.1f}   images per second, by arithmetic")
    print(f"{'memory, first and last tenth, MB':34}{memory[1]:8d}{memory[-1]:8d}   peak {record['peak_memory_mb']}")
    machine = record["machine"]
    print(f"{machine['processor']}, load {machine['load_before']:.1f} before and {machine['load_after']:.1f} after")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--side", type=int, default=512, help="pixels")
    parser.add_argument("--faces", default="sface")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write everything to this JSON file")
    return parser.parse_args(namespace=argparse.Namespace(load=os.getloadavg()[0]))


if __name__ == "__main__":
    main()
