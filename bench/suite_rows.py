"""What the suite measures on a GPU and on a CPU: a row for each measurement, which is a command with its flags."""

from collections.abc import Sequence
from dataclasses import dataclass

STEP, MIXED, IMAGES, JOB = "bench.training_step", "bench.mixed_batch", "bench.generation", "bench.whole_job"
PERSON = "bench.personalization"
H200_TFLOP = "790"  # a second in bf16 products, measured on one (issue's spec); --peak says another card's

ALONE = ["--loops", "ours"]
ONE_TECHNIQUE = "stage 2, ours, one technique"
ALL_STEPS = "stage 2, all steps of a person"

# (batch, checkpoints, without PEFT): two bases, and PEFT's larger step, do not fit everywhere that ours does.
COMPARED = ((1, "none", False), (1, "full", False), (4, "full", False), (1, "none", True), (4, "none", True))
COMPARED += ((4, "selective", True),)

# One after another on and off, at batch 1; each against a step that has none of them.
TECHNIQUES: dict[str, list[str]] = {
    "selective checkpoints": ["--checkpointing", "selective"],
    "full checkpoints": ["--checkpointing", "full"],
    "attention cudnn": ["--attention", "cudnn"],
    "attention flash": ["--attention", "flash"],
    "attention flash-3": ["--attention", "flash-3"],
    "compiled": ["--compile"],
    "compiled, CUDA graphs": ["--compile", "--cuda-graphs"],
    "int8": ["--eight-bit"],
    "int8, compiled": ["--eight-bit", "--compile"],
}
# What a smaller card would take: (GB, pixels, what it needs for that).
CAPPED: tuple[tuple[int, int, list[str]], ...] = (
    (24, 1024, ["--eight-bit", "--checkpointing", "full"]),
    (24, 1024, ["--swap-blocks", "30", "--checkpointing", "full"]),
    (24, 512, ["--eight-bit", "--checkpointing", "selective"]),
    (16, 1024, ["--four-bit", "--checkpointing", "full"]),
    (16, 512, ["--eight-bit", "--checkpointing", "full"]),
    (12, 1024, ["--four-bit", "--checkpointing", "full"]),
    (12, 512, ["--four-bit", "--checkpointing", "full"]),
    (12, 512, ["--eight-bit", "--swap-blocks", "30", "--checkpointing", "full"]),
)


@dataclass(frozen=True)
class Row:
    """One measurement, in a process of its own."""

    name: str  # also its file's
    group: str  # a heading of the table
    module: str
    flags: Sequence[str]

    def command(self) -> list[str]:
        """Behind `python`."""
        return ["-m", self.module, *self.flags]


def rows_of(device: str, *, quick: bool = False, peak: str = H200_TFLOP, backbone: str = "miniature") -> list[Row]:
    """Everything for this kind of machine; `quick` takes few steps, and on a GPU 512 pixels alone."""
    if device.startswith("cuda"):
        return gpu_rows(device, quick, peak, backbone)
    return cpu_rows(quick)


def cpu_rows(quick: bool) -> list[Row]:
    """The miniature's size on one thread: the tensors are so small that several would wait for each other."""
    thread = ["--threads", "1"]
    few, many = [*thread, "--steps", "3" if quick else "20"], [*thread, "--steps", "3" if quick else "50"]
    rows = [Row("step", "stage 2, ours and PEFT", STEP, many)]
    techniques = {name: TECHNIQUES[name] for name in ("selective checkpoints", "full checkpoints", "int8")}
    for technique, more in {**techniques, "attention math": ["--attention", "math"]}.items():
        rows.append(Row(named("step", technique), ONE_TECHNIQUE, STEP, [*few, *ALONE, *more]))
    rows.append(Row("mixed", "stage 1", MIXED, few))
    rows.append(Row("mixed-bf16", "stage 1", MIXED, [*few, "--precision", "bf16"]))
    rows.append(Row("person", ALL_STEPS, PERSON, [*thread, *(["--steps", "3"] if quick else [])]))
    rows.append(Row("images", "images", IMAGES, [*thread, *(["--sampling-steps", "2"] if quick else [])]))
    rows.append(Row("job", "the whole job", JOB, [*thread, *(["--steps", "3"] if quick else [])]))
    return rows


def gpu_rows(device: str, quick: bool, peak: str, backbone: str) -> list[Row]:
    """FLUX.1-dev's shapes with random weights."""
    flux = ["--device", device, "--size", "flux-dev", "--precision", "bf16"]
    timed, floor = ["--steps", "5" if quick else "20"], ["--peak", peak]
    rows = []
    sizes = (512,) if quick else (512, 1024)
    for pixels in sizes:
        common = [*flux, *timed, "--pixels", str(pixels)]
        for batch, how, alone in COMPARED:
            if batch == 1 or not quick:
                flags = [*common, *floor, "--batch", str(batch), "--checkpointing", how, *(ALONE if alone else [])]
                name = f"step-{pixels}-batch-{batch}-{how}{'-ours' if alone else ''}"
                rows.append(Row(name, "stage 2, ours alone" if alone else "stage 2, ours and PEFT", STEP, flags))
        for technique, more in TECHNIQUES.items():
            flags = [*common, *floor, *ALONE, *more]
            rows.append(Row(named(f"step-{pixels}", technique), ONE_TECHNIQUE, STEP, flags))
        for how in ("selective", "full"):
            flags = [*common, "--batch", "4", "--checkpointing", how]
            rows.append(Row(f"mixed-{pixels}-{how}", "stage 1", MIXED, [*flags, "--mixed-alone"]))
        for more in ([], ["--compile"], ["--eight-bit", "--compile"]):
            name = named(f"person-{pixels}", " ".join(more).replace("--", ""))
            all_steps = [*flux, "--pixels", str(pixels), *(["--steps", "12"] if quick else []), *more]
            rows.append(Row(name, ALL_STEPS, PERSON, all_steps))
        rows.append(Row(f"images-{pixels}", "images", IMAGES, [*flux, "--pixels", str(pixels)]))
    for gigabytes, pixels, more in CAPPED:
        if pixels in sizes:
            name = named(f"capped-{gigabytes}-gb-{pixels}", " ".join(more).replace("--", ""))
            flags = [*flux, *timed, "--pixels", str(pixels), "--memory-gb", str(gigabytes), *ALONE, *more]
            rows.append(Row(name, "capped memory", STEP, flags))
    steps = ["--steps", "20"] if quick else []
    rows.append(Row("job", "the whole job", JOB, ["--device", device, "--backbone", backbone, *steps]))
    return rows


def named(start: str, what: str) -> str:
    """A file's name of words."""
    return "-".join([start, *what.replace(",", " ").lower().split()])
