"""A benchmark run: personalize, make images, score, merge. Stopped at any point, the same call goes on.

Everything is a file that is written whole or not at all, and a file that is there is not made again. People are dealt
to processes (`torchrun`) by units that the plan fixes, so what one computes does not depend on how many there are.
"""

import json
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import count
from pathlib import Path

import torch

from ...backbones.pipeline import Speed
from ...backbones.protocol import Autoencoder, Backbone, Denoiser
from ...config import Phase, Step, UserError
from ...measure import load_faces
from ...measure.clip import load_clip
from ...store import files
from ...store.cache import Cache
from ...store.manifest import Identity, read_manifest
from ...store.prompts import read_prompts
from .. import Job
from ..evaluate.whole import truncation
from ..photos import prompt_embeddings
from ..training_files import read_meta_down
from .images import batches_left, make_images
from .plan import Layout, Plan, filled_texts, identity_of, speed_of
from .plan_file import located, read_plan
from .results import write_results
from .scores import PictureScorer, Scorer, gallery_of, real_faces
from .shares import Partners, Share, Unit, units_of
from .train import Bench, encode_crops, is_trained, train_group


def run_benchmark(
    run: Path, backbone: Backbone, cache: Cache, share: Share, draws: Backbone | None = None
) -> Job[Path | None]:
    """Do this process's share; the first waits for the others, writes `results.json` and gives its path.

    Images are made by `draws`, where the plan was made with another base for them.
    """
    partners = Partners(run / "processes", share)
    return (yield from partners.present(do_share(run, backbone, draws or backbone, cache, share, partners)))


def do_share(
    run: Path, backbone: Backbone, draws: Backbone, cache: Cache, share: Share, partners: Partners
) -> Job[Path | None]:
    """The same, unseen by the others."""
    began = time.time()
    plan, layout = read_plan(run), Layout(run)
    files.sweep(run, deep=True)
    yield Phase("checking that nothing has changed since the plan")
    people = checked_people(plan, backbone, draws, run)
    scorer = scorer_of(plan, layout, people, backbone.device, cache)
    for index, person in enumerate(plan.people, 1):
        scorer.real[person.identity] = real_faces(people[person.identity], scorer.analyser, cache)
        yield Step(index, len(plan.people))
    units = units_of(plan, layout)
    photos = {identity: person.reference.path for identity, person in people.items()}
    yield from make_everything(share.of(units), Bench(plan, layout, photos, backbone, {}, cache), draws)
    shares = [Share(rank, share.processes).of(units) for rank in range(share.processes)]
    cells = [[cell for unit in own for cell in unit.scores] for own in shares]
    own = cells[share.rank]
    yield Phase(f"scoring the images of {len(own)} times a person")
    if scorer.pictures.clip and (cut := truncation(scorer.pictures.clip, filled_texts(plan.prompts))):
        yield Phase(cut)
    for index, cell in enumerate(own, 1):
        scorer.score(cell)
        yield Step(index, len(own))
    if share.rank > 0:
        return None
    yield from partners.wait_for(dict(enumerate(cells[1:], 1)), scorer.is_scored)
    yield Phase("intervals and comparisons")
    write_results(scorer)
    write_facts(layout, backbone, share, time.time() - began)
    return layout.results


def scorer_of(plan: Plan, layout: Layout, people: Mapping[str, Identity], device: torch.device, cache: Cache) -> Scorer:
    """The embedders of the plan, refused if they have other weights now."""
    analyser = load_faces(located(plan.faces["name"], layout.run))
    check_weights(plan.faces["name"], plan.faces["sha256"], analyser.digest)
    clip = None
    if plan.clip is not None:
        clip = load_clip(located(plan.clip["given"], layout.run), device)
        check_weights(clip.name, plan.clip["sha256"], clip.digest)
    pictures = PictureScorer(clip, plan.alternatives)
    return Scorer(plan, layout, analyser, pictures, gallery_of(plan, people, analyser, cache))


def check_weights(name: str, planned: str, found: str) -> None:
    """Scores of other weights cannot be compared."""
    if found != planned:
        raise UserError(
            f"{name} has other weights (sha256 {found[:16]}...) than when the plan was made ({planned[:16]}...). "
            "Put the planned file back, or plan again in another folder."
        )


def checked_people(plan: Plan, backbone: Backbone, draws: Backbone, run: Path) -> dict[str, Identity]:
    """The manifest's people; a UserError lists every input that is not what it was when the plan was made."""
    changed = []
    if identity_of(backbone) != plan.backbone:
        changed.append(f"the base (planned: {plan.backbone['name']})")
    if identity_of(draws) != (plan.drawn_with or plan.backbone):
        changed.append("the base that makes the images")
    if speed_of(backbone) != plan.speed:
        changed.append(f"how the base is run (planned: {Speed(**plan.speed)})")
    manifest = read_manifest(Path(located(plan.manifest, run)), look=False)
    if manifest.sha256 != plan.manifest_sha256:
        changed.append(f"the manifest {plan.manifest}")
    if read_prompts(Path(located(plan.prompts_file, run))).sha256 != plan.prompts_sha256:
        changed.append(f"the prompts {plan.prompts_file}")
    for class_name, down in plan.meta_downs.items():
        path = Path(located(down["path"], run))
        _, origin = read_meta_down(path, backbone.sites(plan.training["sites"]), backbone.name, max(plan.ranks))
        if origin["meta_down"] != down["sha256"]:
            changed.append(f"the Meta-Down of {class_name}, {path}")
    absent = {*plan.gallery, *(person.identity for person in plan.people)} - {one.name for one in manifest.people}
    if absent:
        changed.append(f"the people ({', '.join(sorted(absent)[:3])} ...)")
    if changed:
        raise UserError(
            f"Since {run / 'plan.json'} was made, this has changed: {'; '.join(changed)}. Give the same files and "
            "flags as then, or plan again in another folder: results of two plans are never mixed."
        )
    return {person.name: person for person in manifest.people}


def make_everything(units: Sequence[Unit], bench: Bench, draws: Backbone) -> Job[None]:
    """Train and make images, unit by unit; where another base makes them, after all training.

    Transformer and autoencoder are loaded once, and only if there is work.
    """
    backbone = bench.backbone
    trainings = [training for unit in units for training in unit.trainings if not is_trained(training, bench.layout)]
    bench = yield from with_prompts(bench, backbone)
    batches = sum(batches_left(*cell, bench) for unit in units for cell in unit.images)
    if not trainings and not batches:
        return
    for training in trainings:
        yield from encode_crops(training, bench)
    sampling_steps = bench.plan.sampling["sampling_steps"]
    left = TimeLeft({"training": sum(max(t.variants) for t in trainings), "images": sampling_steps * batches})
    yield Phase("loading the transformer and the autoencoder")
    if draws is not backbone:
        if trainings:
            with backbone.denoiser() as denoiser:
                for unit in units:
                    yield from train_unit(unit, bench, denoiser, left)
        bench = yield from with_prompts(bench, draws)
    # Both at once: images are decoded as they are made, so that a stopped run keeps them.
    with draws.denoiser() as denoiser, draws.autoencoder() as autoencoder:
        for unit in units:
            if draws is backbone:
                yield from train_unit(unit, bench, denoiser, left)
            yield from draw_unit(unit, bench, denoiser, autoencoder, left)


def train_unit(unit: Unit, bench: Bench, denoiser: Denoiser, left: "TimeLeft") -> Job[None]:
    """Its trainings."""
    for training in unit.trainings:
        if not is_trained(training, bench.layout):
            yield Phase(f"{unit.name}: {training.method}, rank {training.rank}; {left}")
            yield from left.timed(train_group(training, bench, denoiser), "training")


def draw_unit(unit: Unit, bench: Bench, denoiser: Denoiser, autoencoder: Autoencoder, left: "TimeLeft") -> Job[None]:
    """Its images, variant by variant."""
    for variant in dict.fromkeys(variant for variant, _ in unit.images):
        people = [person for other, person in unit.images if other == variant]
        steps = bench.plan.sampling["sampling_steps"] * sum(batches_left(variant, p, bench) for p in people)
        if steps:
            yield Phase(f"{unit.name}: images of {variant.id}; {left}")
            numbers = (Step(index, steps) for index in count(1))
            for person in people:
                yield from left.timed(make_images(variant, person, bench, denoiser, autoencoder), "images", numbers)


def with_prompts(bench: Bench, backbone: Backbone) -> Job[Bench]:
    """The same run on this base, with the embeddings of every caption and every prompt."""
    texts = filled_texts(bench.plan.prompts)
    for person in bench.plan.people:
        training = bench.plan.training_of("lora", 1, person, 1)  # captions are the same for every method
        texts += [training.prompt, training.class_prompt]
    texts = list(dict.fromkeys(texts))
    encoded = yield from prompt_embeddings(texts, backbone, bench.cache)
    return replace(bench, backbone=backbone, prompts=dict(zip(texts, encoded, strict=True)))


def write_facts(layout: Layout, backbone: Backbone, share: Share, seconds: float) -> None:
    """Everything that may differ between two runs with the same results."""
    record = {
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds_of_the_last_call": round(seconds, 1),
        "processes": share.processes,
        "device": str(backbone.device),
        "machine": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    files.write_bytes(layout.facts, (json.dumps(record, indent=1) + "\n").encode())


class TimeLeft:
    """Steps of several kinds that are left, each with its own pace."""

    def __init__(self, left: dict[str, int]):
        self.left = left
        self.pace = {kind: (0, 0.0) for kind in left}  # steps that were timed, and their seconds

    def timed(self, job: Job[None], kind: str, numbers: Iterator[Step] | None = None) -> Job[None]:
        """The same job; its steps are timed, and have other `numbers` where they are part of something longer."""
        last, clock = 0, time.perf_counter()
        with closing(job):
            for progress in job:
                if not isinstance(progress, Step):
                    yield progress
                    continue
                steps, seconds = self.pace[kind]
                self.pace[kind] = steps + 1, seconds + time.perf_counter() - clock
                done = progress.index - last if progress.index > last else 1  # more than one: an earlier call's
                self.left[kind], last = max(0, self.left[kind] - done), progress.index
                yield progress if numbers is None else next(numbers)
                clock = time.perf_counter()

    def __str__(self) -> str:
        """In words; what has not been timed yet is named."""
        known = {kind: seconds / steps for kind, (steps, seconds) in self.pace.items() if steps}
        unknown = [kind for kind, left in self.left.items() if left and kind not in known]
        if not known:
            return "time left not known yet"
        minutes = sum(self.left[kind] * pace for kind, pace in known.items()) / 60
        long = f"{minutes:.0f} minutes" if minutes < 90 else f"{minutes / 60:.1f} hours"
        said = f"about {long if minutes >= 1 else 'a minute'} left"
        return said + (f", without {' and '.join(unknown)}" if unknown else "")
