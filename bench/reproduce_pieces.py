"""What the reproduction consists of: pieces, each a folder, each a list of commands that anyone could type."""

import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .reproduce_sizes import TRAINED, Size

CLASSES = ("woman", "man")
SAMPLING_SHARE = 1 / 3  # of a training step on one photo: what a sampling step costs, forward without backward


@dataclass(frozen=True)
class Command:
    """What is typed, the file whose presence says that it is done, and its cost in training steps on one photo."""

    words: list[str]
    makes: Path
    work: float = 0.0
    program: str = "metalora"
    shared: bool = False  # by several processes
    beside: bool = False  # needs none of its piece's other commands, so that several may run at once

    def __str__(self) -> str:
        start = "metalora" if self.program == "metalora" else f"python -m {self.program}"
        return f"{start} {shlex.join(self.words)}"


@dataclass(frozen=True)
class Piece:
    """One part of the experiment; `commands` are made when asked for, since some depend on what others write."""

    name: str
    about: str
    folder: Path
    commands: Callable[[], list[Command]]
    needs: tuple[str, ...] = ()

    @property
    def results(self) -> Path:
        """Of its benchmark; a piece that prepares something has none."""
        return self.folder / "results.json"


@dataclass(frozen=True)
class Inputs:
    """Files that are given instead of what comes along."""

    people: Path | None = None
    manifest: Path | None = None
    prompts: Path | None = None

    def flags(self) -> list[str]:
        """Of `benchmark plan`."""
        found = (("--manifest", self.manifest), ("--prompts", self.prompts))
        return [str(word) for flag, path in found if path for word in (flag, path)]


def pieces_of(out: Path, size: Size, inputs: Inputs) -> list[Piece]:
    """Everything, in the order in which it tells most soonest."""
    make = Maker(out, size, inputs)
    found = [] if inputs.people else [make.rendered_people()]
    found += [
        make.stage_one("trained", "stage 1 for both classes, as the preset has it", []),
        make.benchmark("methods", "the methods against each other at every step count", size.methods),
        make.benchmark("random", "the control: a Meta-Down that has learned nothing", downs=None),
        make.benchmark(
            "ranks",
            "the methods at every rank",
            TRAINED,
            downs=size.rank_downs,
            ranks=size.ranks,
            steps=size.rank_steps,
        ),
        make.benchmark("mean-heads", "heads that start at the mean of stage 1's", flags=["--heads", "mean"]),
    ]
    variations = [(f"meta-rank-{n}", f"r1 = {n}", ["--meta-rank", str(n)]) for n in size.meta_ranks]
    variations += [
        (f"people-{n}", f"stage 1 on {n} people of each class", ["--limit-people", str(n)]) for n in size.people
    ]
    if size.starts:
        random, alone = ["--start", "random", "--down-rate", "1"], ["--down-rate", "0"]
        variations.append(("random-start", "stage 1 from a random Meta-Down, as the paper's", random))
        variations.append(("start-alone", "where stage 1 starts: the Meta-Down never moves", alone))
        repeated = ["--start", "repeated"]
        variations.append(("repeated-start", "stage 1 from where two looks at one person agree", repeated))
    if size.head_loss:
        weighted = ["--background-weight", "0.1"]
        variations.append(("head-loss", "stage 1 counts the head as stage 2 does", weighted))
        both = [*weighted, "--start", "repeated"]
        variations.append(("head-loss-repeated", "both: from where two looks agree, the head counted most", both))
    if size.even_rows:
        variations.append(("as-trained", "the Meta-Down's rows as stage 1 leaves them", ["--no-even-rows"]))
    variations += [("no-warm-up", "stage 1 without warm-up", ["--warmup-steps", "0"])] if size.no_warm_up else []
    for name, about, flags in variations:
        found.append(make.stage_one(f"{name}-down", about, flags))
        found.append(make.benchmark(name, about, downs=f"{name}-down"))
    if size.loras:
        found.append(make.person_loras(max(size.loras)))
    for count in size.loras:
        name, about = f"loras-{count}", f"a Meta-Down distilled from {count} LoRAs"
        found.append(make.distilled(f"{name}-down", about, count))
        found.append(make.benchmark(name, about, downs=f"{name}-down"))
    return found


@dataclass(frozen=True)
class Maker:
    """Pieces of one reproduction."""

    out: Path
    size: Size
    inputs: Inputs

    @property
    def people(self) -> Path:
        """Whom stage 1 learns from."""
        return self.inputs.people or self.out / "people" / "people.jsonl"

    def rendered_people(self) -> Piece:
        """People for stage 1."""
        shards, folder, count = self.out / "people" / "shards", self.out / "people", self.size.rendered
        words = ["--split", "meta", "--people", str(count), "--out", str(shards)]
        commands = [
            Command(words, self.people, 20.0 * count, "tools.miniature.render"),
            Command(["--shards", str(shards), "--out", str(folder)], self.people, 0, "tools.miniature.export_people"),
        ]
        return Piece("people", "people to meta-train on, rendered", folder, lambda: commands)

    def stage_one(self, name: str, about: str, flags: list[str]) -> Piece:
        """A Meta-Down for each class."""
        fixed = [*self.size.base.split(), *self.size.stage_one.split(), *flags]
        return self.downs(name, about, ["meta-train", str(self.people)], fixed, self.size.stage_one_work)

    def distilled(self, name: str, about: str, count: int) -> Piece:
        """The same from ordinary LoRAs."""
        start = ["meta-down", "from-loras", str(self.out / "person-loras" / "{kind}")]
        fixed = [*self.size.base.split(), "--meta-rank", str(self.size.meta_rank), "--first", str(count)]
        return self.downs(name, about, start, fixed, 0, ("person-loras",))

    def downs(
        self, name: str, about: str, start: list[str], flags: list[str], work: float, needs: tuple[str, ...] = ()
    ) -> Piece:
        """A command for each class that writes its Meta-Down."""
        commands = []
        for kind in CLASSES:
            path = self.out / name / f"{kind}.safetensors"
            words = [*(word.replace("{kind}", kind) for word in start), "--class", kind, "--out", str(path), *flags]
            commands.append(Command(words, path, work, shared=start[0] == "meta-train"))
        return Piece(name, about, self.out / name, lambda: commands, needs or self.after_people())

    def person_loras(self, count: int) -> Piece:
        """Ordinary LoRAs of people of stage 1, each from their first photo."""
        folder = self.out / "person-loras"

        def commands() -> list[Command]:
            found = []
            for kind in CLASSES:
                for name, photo in first_photos(self.people, kind)[:count]:
                    path = folder / kind / f"{name}.safetensors"
                    words = ["personalize", str(photo), "--class", kind, "--method", "lora-crops", "--out", str(path)]
                    words += [*self.size.base.split(), *self.size.stage_two.split(), "--face", "largest"]
                    found.append(Command(words, path, self.size.stage_two_steps, beside=True))
            return found

        about = f"ordinary LoRAs of {count} people of each class"
        return Piece("person-loras", about, folder, commands, self.after_people())

    def benchmark(
        self,
        name: str,
        about: str,
        methods: Sequence[str] = ("meta-lora",),
        *,
        downs: str | None = "trained",
        ranks: Sequence[int] = (),
        steps: Sequence[int] = (),
        flags: Sequence[str] = (),
    ) -> Piece:
        """A run on the same people, prompts and noise as every other; `downs` None is the random Meta-Down."""
        folder, steps = self.out / name, steps or self.size.step_counts
        words = ["benchmark", "plan", str(folder), "--methods", *methods, "--steps", *map(str, steps), "--meta-down"]
        control = ["random", "--meta-rank", str(self.size.meta_rank)]
        words += [f"{kind}={self.out / downs / kind}.safetensors" for kind in CLASSES] if downs else control
        words += ["--ranks", *map(str, ranks or [self.size.rank])]
        words += [*flags, *self.size.base.split(), *self.size.measured.split(), *self.inputs.flags()]
        trainings = sum(method in TRAINED for method in methods) * max(1, len(ranks))
        drawn = len(steps) * self.size.images * self.size.sampling_steps * SAMPLING_SHARE
        work = trainings * self.size.measured_people * (max(steps) + drawn)
        commands = [
            Command(words, folder / "results.json"),
            Command(["benchmark", "run", str(folder)], folder / "results.json", work, shared=True),
        ]
        return Piece(name, about, folder, lambda: commands, (downs,) if downs else ())

    def after_people(self) -> tuple[str, ...]:
        """What needs people."""
        return () if self.inputs.people else ("people",)


def first_photos(people: Path, kind: str) -> list[tuple[str, Path]]:
    """(identity, their first photo) of everyone of a class; nobody while the manifest is not there."""
    found: dict[str, Path] = {}
    for line in people.read_text(encoding="utf-8").splitlines() if people.exists() else []:
        row = json.loads(line)
        if row["class"] == kind:
            found.setdefault(row["identity"], people.parent / row["path"])
    return list(found.items())
