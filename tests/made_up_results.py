"""MADE UP results of a benchmark run, for tests of reports alone, and a reader of the pages that are made of them.

The scores are drawn, nothing was generated: the "generated" images are photos of the mini benchmark.
"""

import json
import random
import shutil
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import metalora
from metalora.jobs.benchmark.plan import PlannedPerson, PlannedPrompt
from metalora.jobs.benchmark.results import FORMAT, benchmark_record, comparisons, summary

MINI = Path(metalora.__file__).parent / "data" / "mini_benchmark"
VARIANTS = (
    ("none", None),
    ("meta-lora", 150),
    ("meta-lora", 375),
    ("lora", 375),
    ("lora-crops", 150),
    ("lora-crops", 375),
)
LIKENESS = {"none": 0.16, "meta-lora": 0.62, "lora": 0.40, "lora-crops": 0.58}
LABELS = {"none": "no LoRA", "meta-lora": "Meta-LoRA", "lora": "LoRA, whole photo", "lora-crops": "LoRA + crops"}
HASH = "0123456789abcdef" * 4
FLOOR, CEILING = 0.143, 0.771


def made_up_run(folder: Path, people: int = 6, prompts: int = 3, seeds: int = 2, variants: Any = VARIANTS) -> Path:
    """The folder of a run that never was, with results.json, references and images."""
    rows = [json.loads(line) for line in (MINI / "manifest.jsonl").read_text().splitlines()]
    references = [row for row in rows if row["role"] == "reference" and row["part"] == "several-photos"][:people]
    photos = {person["identity"]: [r for r in rows if r["identity"] == person["identity"]] for person in references}
    asked = json.loads((MINI / "prompts.json").read_text())["several-photos"][:prompts]
    for person in references:
        copied(MINI / person["path"], folder / reference_of(person))
    planned: Any = SimpleNamespace(
        **{"name": "made_up", "manifest_sha256": HASH, "prompts_sha256": HASH[::-1], "gallery": list(photos)},
        alternatives={"background": [""] * 30},
        people=[PlannedPerson(p["identity"], p["class"], p["part"], reference_of(p), 0, 0) for p in references],
        prompts=[
            PlannedPrompt(one["id"], "several-photos", None, None, one["prompt"], [], one["asks"], {}, {})
            for one in asked
        ],
    )
    real: Any = {name: SimpleNamespace(held_out=own[1:]) for name, own in photos.items()}
    record = {
        "format": FORMAT,
        "benchmark": benchmark_record(planned, real),
        "backbone": {"name": "made up", "fingerprint": "made-up-fingerprint"},
        "sampling": {"sampling_steps": 30, "guidance": 3.5, "width": 128, "height": 128, "strength": 1.0},
        "seeds": list(range(seeds)),
        "embedders": {
            "faces": {
                "name": "sface",
                "sha256": HASH,
                "licence": "Apache-2.0",
                "genuine_mean": CEILING,
                "impostor_mean": FLOOR,
                "detected": sum(map(len, photos.values())),
            },
            "clip": {"name": "ViT-B-32 openai", "sha256": HASH, "truncated": []},
        },
        "variants": [made_up_variant(folder, m, s, references, photos, asked, seeds) for m, s in variants],
        "comparisons": [],
    }
    record["comparisons"] = comparisons(record["variants"], set(photos))
    write(folder, record)
    return folder


def reference_of(person: dict[str, Any]) -> str:
    return f"references/{person['identity']}.jpg"


def write(folder: Path, record: dict[str, Any]) -> None:
    """results.json of a changed record."""
    (folder / "results.json").write_text(json.dumps(record), encoding="utf-8")


def read(folder: Path) -> dict[str, Any]:
    """The record, to be changed."""
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def copied(photo: Path, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copyfile(photo, path))


def made_up_variant(
    folder: Path, method: str, steps: int | None, people: list, photos: dict, prompts: list, seeds: int
) -> dict[str, Any]:
    name = f"{method}-{steps}-r1" if steps else method
    drawn = random.Random(name)
    planned = [PlannedPerson(row["identity"], row["class"], row["part"], "", 0, 0) for row in people]
    images, of_photo = [], {row["path"]: row["sha256"] for rows in photos.values() for row in rows}
    for person in people:
        nearest = [person["identity"]] * (2 if method == "none" else 15) + [who["identity"] for who in people]
        own = random.Random(person["identity"]).gauss(0, 0.05)
        for prompt in prompts:
            for seed in range(seeds):
                photo = drawn.choice(photos[person["identity"]])["path"]
                path = f"images/{name}/{person['identity']}/{prompt['id']}-{seed}.jpg"
                copied(MINI / photo, folder / path)
                found = drawn.random() > 0.05
                likeness = LIKENESS[method] * (1 - 30 / steps if steps else 1) + own + drawn.gauss(0, 0.04)
                copying = drawn.gauss(0.12 if method == "lora" else 0.03, 0.02)
                images.append(
                    {
                        "identity": person["identity"],
                        "prompt": prompt["id"],
                        "seed": seed,
                        "path": path,
                        "sha256": of_photo[photo],
                        "faces": int(found),
                        "held_out": likeness if found else None,
                        "reference": likeness + copying if found else None,
                        "best": likeness if found else None,
                        "nearest": drawn.choice(nearest) if found else None,
                        "clip_t": 31 - 3 * LIKENESS[method] + drawn.gauss(0, 0.8),
                        "clip_i": None,
                        "shown": {"background": drawn.choice([0, 1, 1])},
                    }
                )
    return {
        "id": name,
        "method": method,
        "label": LABELS[method] + (f", {steps} steps, rank 1" if steps else ""),
        "steps": steps,
        "rank": 1 if steps else None,
        "settings": {"learning_rate": 0.0004, "meta_rank": 16} if steps else {},
        "meta_down_sha256": {"woman": HASH, "man": HASH} if method == "meta-lora" else None,
        "lora_sha256": {person["identity"]: HASH for person in people} if steps else {},
        "images": images,
        "missing": [],
        "summary": summary(images, planned, set(photos), FLOOR, CEILING),
    }


class Page(HTMLParser):
    """What a page holds; broken nesting fails."""

    ALONE = frozenset({"meta", "img", "br"})

    def __init__(self, page: str):
        super().__init__()
        self.source = page
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.ALONE:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, (tag, self.open)

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.texts.append(data)

    @property
    def text(self) -> str:
        """All that is to be read."""
        return " ".join("".join(self.texts).split())

    def named(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of each element with this name."""
        return [attributes for name, attributes in self.tags if name == tag]
