"""Every setting of a benchmark."""

from dataclasses import dataclass

from .config import METHODS, NONE, UserError, check_options, option

PARTS = ("several-photos", "single-photo")


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """What a benchmark compares, on whom, and how the work is cut."""

    methods: tuple[str, ...] = option(
        (NONE, *METHODS),
        "what is compared: none is the base without a LoRA",
        choices=(NONE, *METHODS),
        common=True,
    )
    step_counts: tuple[int, ...] = option(
        (), "training steps; several come from one training", low=1, flag="--steps", common=True
    )
    ranks: tuple[int, ...] = option((), "ranks of the finished LoRAs", low=1, common=True)
    seeds: tuple[int, ...] = option((0, 1), "an image of each prompt for each of these", common=True)
    parts: tuple[str, ...] = option(PARTS[:1], "people of several photos (R-FaceSim), of one (CLIP-T)", choices=PARTS)
    people: int = option(0, "only the first so many people, for a quick try; 0: all", low=0, common=True)
    prompts_each: int = option(0, "only the first so many prompts of each group; 0: all", low=0, common=True)
    leave_out: tuple[str, ...] = option((), "leave out prompts with these tags: age")
    together: int = option(4, "people of one class who are personalized at once", low=1, high=256)
    images_at_once: int = option(10, "images that are made at once", low=1, high=256)
    threads: int = option(1, "CPU threads of each process: results depend on it in their last digits", low=1, high=1024)

    def __post_init__(self) -> None:
        check_options(self)
        problems = []
        for name in ("methods", "step_counts", "ranks", "seeds", "parts"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                problems.append(f"{name} has something twice: {' '.join(map(str, values))}")
            if not values and name not in ("step_counts", "ranks"):
                problems.append(f"{name} is empty")
        if problems:
            raise UserError(f"BenchmarkConfig: {'; '.join(problems)}.")
