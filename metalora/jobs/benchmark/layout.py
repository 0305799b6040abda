"""Where a benchmark run keeps what: every file by the variant and the person it belongs to."""

from pathlib import Path

from ...config import NONE
from .plan import PlannedPerson, PlannedPrompt, Variant

EXTERNAL = "external"


class Layout:
    """The folder of a run."""

    def __init__(self, run: Path):
        self.run = run

    @property
    def results(self) -> Path:
        """What was measured: the same bytes from the same plan."""
        return self.run / "results.json"

    @property
    def facts(self) -> Path:
        """When, how long and on what: everything that may differ from run to run."""
        return self.run / "run.json"

    def lora(self, variant: Variant, person: PlannedPerson) -> Path:
        """A finished LoRA."""
        return self.run / "loras" / variant.id / f"{person.identity}.safetensors"

    def state(self, method: str, rank: int, group: int) -> Path:
        """The training of a group, when it was stopped."""
        return self.run / "states" / f"{method}-r{rank}-group-{group}.safetensors"

    def image(self, variant: Variant, person: PlannedPerson, prompt: PlannedPrompt, seed: int) -> Path:
        """An image. Without a LoRA it is the same for everyone of a class, and is made once."""
        name = f"{prompt.id}-{seed}.png"
        if variant.id.startswith(EXTERNAL + "-"):
            return self.run / EXTERNAL / variant.method / person.identity / name
        return (
            self.run / "images" / variant.id / (person.class_name if variant.method == NONE else person.identity) / name
        )

    def scores(self, variant: Variant, person: PlannedPerson) -> Path:
        """The scores of a person's images."""
        return self.run / "scores" / variant.id / f"{person.identity}.json"

    def relative(self, path: Path) -> str:
        """As results.json names it."""
        return path.relative_to(self.run).as_posix()

    def external_variants(self) -> list[Variant]:
        """A row for each method whose images were brought: the sub-folders of `external`."""
        folder = self.run / EXTERNAL
        names = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
        return [Variant(f"{EXTERNAL}-{name}", name, name, None, None) for name in names]
