"""Every setting of a benchmark."""

from dataclasses import dataclass

from .config import METHODS, NONE, SOURCES, PersonalizeConfig, UserError, check_options, option

PARTS = ("several-photos", "single-photo")


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """What a benchmark compares, on whom, and how the work is cut."""

    methods: tuple[str, ...] = option(
        (NONE, *METHODS), "what is compared: none is the base without a LoRA", common=True
    )
    step_counts: tuple[int, ...] = option(
        (), "training steps; several come from one training", flag="--steps", common=True
    )
    ranks: tuple[int, ...] = option((), "ranks of the finished LoRAs", common=True)
    own_learning_rates: tuple[str, ...] = option(
        (), "METHOD=X: another learning rate for this method, such as lora=0.002", flag="--own-learning-rate"
    )
    sources: tuple[str, ...] = option(
        (), f"each method learns from each of {', '.join(SOURCES)}", flag="--learn-from", common=True
    )
    seeds: tuple[int, ...] = option((0, 1), "an image of each prompt for each of these", common=True)
    parts: tuple[str, ...] = option(PARTS[:1], f"{PARTS[0]} (for R-FaceSim), {PARTS[1]} (for CLIP-T), or both")
    people: int = option(0, "only the first so many people, for a quick try; 0: all", low=0, common=True)
    prompts_each: int = option(0, "only the first so many prompts of each group; 0: all", low=0, common=True)
    leave_out: tuple[str, ...] = option((), "leave out prompts with these tags: age")
    together: int = option(4, "people of one class who are personalized at once", low=1, high=256)
    images_at_once: int = option(10, "images that are made at once", low=1, high=256)
    gallery: int = option(0, "look for a face among so many people, also of one photo; 0: those of several", low=0)
    threads: int = option(1, "CPU threads of each process: results depend on it in their last digits", low=1, high=1024)

    def __post_init__(self) -> None:
        check_options(self)
        problems = [
            f"{name!r} is no method: {', '.join((NONE, *METHODS))}"
            for name in self.methods
            if name not in (NONE, *METHODS)
        ]
        problems += [f"{name!r} is no part: {', '.join(PARTS)}" for name in self.parts if name not in PARTS]
        problems += [
            f"nothing is learned from {name!r}: {', '.join(SOURCES)}" for name in self.sources if name not in SOURCES
        ]
        problems += [f"steps and ranks must be at least 1, got {n}" for n in self.step_counts + self.ranks if n < 1]
        for name in ("methods", "step_counts", "ranks", "sources", "seeds", "parts"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                problems.append(f"{name} has something twice: {' '.join(map(str, values))}")
            if not values and name not in ("step_counts", "ranks", "sources"):
                problems.append(f"{name} is empty")
        problems += [problem for text in self.own_learning_rates if (problem := self._problem_of_rate(text))]
        if problems:
            raise UserError(f"BenchmarkConfig: {'; '.join(problems)}.")

    def learning_rates(self) -> dict[str, float]:
        """Those of methods that have their own."""
        pairs = (text.partition("=") for text in self.own_learning_rates)
        return {method: float(rate) for method, _, rate in pairs}

    def _problem_of_rate(self, text: str) -> str | None:
        method, _, rate = text.partition("=")
        trained = [name for name in self.methods if name in METHODS]
        if method not in trained:
            return f"own_learning_rates has {text!r}: METHOD=X, the METHOD one that trains here: {', '.join(trained)}"
        if sum(other.startswith(f"{method}=") for other in self.own_learning_rates) > 1:
            return f"own_learning_rates has {method} twice"
        try:
            PersonalizeConfig(learning_rate=float(rate))
        except (ValueError, UserError) as error:
            return f"own_learning_rates has {text!r}: {error}"
        return None
