"""A benchmark run: personalize, make images, score, merge. Stopped at any point, the same call goes on.

Everything is a file that is written whole or not at all, and a file that is there is not made again. People are dealt
to processes (`torchrun`) by units that the plan fixes, so what one computes does not depend on how many there are.
"""

import json
import platform
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from itertools import chain
from pathlib import Path

import torch

from ...backbones.protocol import Autoencoder, Backbone, Denoiser
from ...backbones.speed import Speed
from ...config import Phase, Step, UserError
from ...measure.clip import load_clip
from ...measure.faces import load_faces
from ...store import files
from ...store.cache import Cache
from ...store.manifest import Identity, read_manifest
from ...store.prompts import read_prompts
from .. import Job
from ..photos import prompt_embeddings
from ..start import read_meta_down
from .images import batches_left, make_images
from .layout import Layout
from .pictures import PictureScorer, truncation
from .plan import Plan, filled_texts, identity_of, speed_of
from .plan_file import located, read_plan
from .results import write_results
from .scores import RealFaces, Scorer, Subject, gallery_of, is_scored, real_faces, score_person
from .shares import Cell, Share, Unit, units_of, wait_for
from .train import Bench, encode_crops, is_trained, train_group


def run_benchmark(run: Path, backbone: Backbone, cache: Cache, share: Share) -> Job[Path | None]:
    """Do this process's share; the first waits for the others, writes `results.json` and gives its path."""
    began = time.time()
    plan, layout = read_plan(run), Layout(run)
    files.sweep(run, deep=True)
    yield Phase("checking that nothing has changed since the plan")
    people = checked_people(plan, backbone, run)
    scorer = scorer_of(plan, run, people, backbone.device, cache)
    real = {}
    for index, person in enumerate(plan.people, 1):
        real[person.identity] = real_faces(people[person.identity], scorer.analyser, cache)
        yield Step(index, len(plan.people))
    units = units_of(plan, layout)
    yield from make_everything(share.of(units), plan, layout, people, backbone, cache)
    subjects = [[subject_of(cell, people, real) for cell in unit.scores] for unit in units]
    own, *others = (
        list(chain(*Share((share.rank + ahead) % share.processes, share.processes).of(subjects)))
        for ahead in range(share.processes)
    )
    yield Phase(f"scoring the images of {len(own)} times a person")
    if scorer.pictures.clip and (cut := truncation(scorer.pictures.clip, filled_texts(plan.prompts))):
        yield Phase(cut)
    for index, subject in enumerate(own, 1):
        score_person(subject, plan, layout, scorer)
        yield Step(index, len(own))
    if share.rank > 0:
        return None
    yield from wait_for(list(chain(*others)), lambda subject: is_scored(subject, plan, layout, scorer))
    yield Phase("intervals and comparisons")
    write_results(plan, layout, [*plan.variants(), *layout.external_variants()], real, scorer)
    write_facts(layout, backbone, share, time.time() - began)
    return layout.results


def scorer_of(plan: Plan, run: Path, people: Mapping[str, Identity], device: torch.device, cache: Cache) -> Scorer:
    """The embedders of the plan, refused if they have other weights now."""
    analyser = load_faces(located(plan.faces["name"], run))
    check_weights(plan.faces["name"], plan.faces["sha256"], analyser.digest)
    clip = None
    if plan.clip is not None:
        clip = load_clip(located(plan.clip["given"], run), device)
        check_weights(clip.name, plan.clip["sha256"], clip.digest)
    return Scorer(analyser, PictureScorer(clip, plan.alternatives), gallery_of(plan, people, analyser, cache))


def check_weights(name: str, planned: str, found: str) -> None:
    """Scores of other weights cannot be compared."""
    if found != planned:
        raise UserError(
            f"{name} has other weights (sha256 {found[:16]}...) than when the plan was made ({planned[:16]}...). "
            "Put the planned file back, or plan again in another folder."
        )


def checked_people(plan: Plan, backbone: Backbone, run: Path) -> dict[str, Identity]:
    """The manifest's people; a UserError lists every input that is not what it was when the plan was made."""
    changed = []
    if identity_of(backbone) != plan.backbone:
        changed.append(f"the base (planned: {plan.backbone['name']})")
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


def subject_of(cell: Cell, people: Mapping[str, Identity], real: Mapping[str, RealFaces]) -> Subject:
    """A cell with what its images are compared with."""
    variant, person = cell
    own = people[person.identity]
    photos = [own.reference.sha256, *(photo.sha256 for photo in own.held_out)]
    return Subject(variant, person, real[person.identity], photos)


def make_everything(
    units: Sequence[Unit],
    plan: Plan,
    layout: Layout,
    people: Mapping[str, Identity],
    backbone: Backbone,
    cache: Cache,
) -> Job[None]:
    """Train and make images, unit by unit. Transformer and autoencoder are loaded once, and only if there is work."""
    trainings = [training for unit in units for training in unit.trainings if not is_trained(training, layout)]
    cells = [cell for unit in units for cell in unit.images]
    texts = texts_of(plan)
    prompts = dict(zip(texts, (yield from prompt_embeddings(texts, backbone, cache)), strict=True))
    photos = {identity: person.reference.path for identity, person in people.items()}
    bench = Bench(plan, layout, photos, backbone, prompts, cache)
    if not trainings and not any(batches_left(variant, person, bench) for variant, person in cells):
        return
    for training in trainings:
        yield from encode_crops(training, bench)
    yield Phase("loading the transformer and the autoencoder")
    # Both at once: images are decoded as they are made, so that a stopped run keeps them.
    with backbone.denoiser() as denoiser, backbone.autoencoder() as autoencoder:
        for unit in units:
            for training in unit.trainings:
                if not is_trained(training, layout):
                    yield Phase(f"{unit.name}: {training.method}, rank {training.rank}")
                    yield from train_group(training, bench, denoiser)
            yield from draw_unit(unit, bench, denoiser, autoencoder)


def draw_unit(unit: Unit, bench: Bench, denoiser: Denoiser, autoencoder: Autoencoder) -> Job[None]:
    """Its images, variant by variant."""
    for variant in dict.fromkeys(variant for variant, _ in unit.images):
        people = [person for other, person in unit.images if other == variant]
        steps = bench.plan.sampling["sampling_steps"] * sum(batches_left(variant, p, bench) for p in people)
        if steps:
            yield Phase(f"{unit.name}: images of {variant.id}")
            made = 0
            for person in people:
                with closing(make_images(variant, person, bench, denoiser, autoencoder)) as job:
                    for progress in job:  # of a batch, where the bar is to be the variant's
                        made += isinstance(progress, Step)
                        yield Step(made, steps) if isinstance(progress, Step) else progress


def texts_of(plan: Plan) -> list[str]:
    """Every caption and every prompt of the run."""
    texts = filled_texts(plan.prompts)
    for person in plan.people:
        training = plan.training_of("lora", 1, person, 1)  # captions are the same for every method
        texts += [training.prompt, training.class_prompt]
    return list(dict.fromkeys(texts))


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
