"""plan.json: written once, read whole and checked whole. Whoever made it, what it names stays where it belongs.

It holds no path of the machine: files are named from the run's folder, or from the data that ships.
"""

import os
from dataclasses import asdict
from itertools import product
from pathlib import Path

from ...backbones.pipeline import Speed
from ...config import NONE, SINGLE_FILES, UserError
from ...config_benchmark import BenchmarkConfig
from ...store import files
from ...store.prompts import WORDS
from ...store.text import decoded, parse_json, problems_by_schema, problems_of_names, refuse
from .plan import FORMAT, Plan, PlannedPerson, PlannedPrompt, reference_of

DATA = Path(__file__).parents[2] / "data"
SHIPPED, FROM_RUN = "shipped:", "from-run:"  # where the rest of a name begins
BASE = ("backbone", "precision", "made_in")  # that `backbone_flags` may hold


def portable(given: str, run: Path) -> str:
    """How the user named a file, a folder or a model, without the path of this machine: from the run's folder."""
    kind = "facenet:" if given.startswith("facenet:") else ""
    path = Path(os.path.abspath(given.removeprefix(kind)))
    if not path.exists():
        return given  # the name of a model
    if path.is_relative_to(DATA):
        return f"{kind}{SHIPPED}{path.relative_to(DATA).as_posix()}"
    try:
        return f"{kind}{FROM_RUN}{Path(os.path.relpath(path, run)).as_posix()}"
    except ValueError:  # on another drive of Windows, where no other name leads
        return given


def located(name: str, run: Path) -> str:
    """What `portable` was given, or where that is now."""
    kind = "facenet:" if name.startswith("facenet:") else ""
    rest = name.removeprefix(kind)
    for mark, folder in ((SHIPPED, DATA), (FROM_RUN, run)):
        if rest.startswith(mark):
            return kind + os.path.abspath(folder / rest.removeprefix(mark))
    return name


def read_plan(run: Path) -> Plan:
    """The plan of a run's folder, as whole and as plain as `make_plan` would have made it."""
    path = run / "plan.json"
    try:
        record = parse_json(decoded(path.read_bytes(), str(path)))
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}). `metalora benchmark plan {run}` makes the plan first."
        ) from error
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}). Delete it and plan again.") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        found = record.get("format") if isinstance(record, dict) else record
        raise UserError(f"{path} has the format {str(found)[:60]!r}, not {FORMAT!r}. Plan again in another folder.")
    foreign, again = f"{path} is not a plan of this version: it", "Plan again in another folder."
    refuse(foreign, problems_by_schema(record, "plan"), again)
    prompts = [PlannedPrompt(**{**prompt, "tags": tuple(prompt["tags"])}) for prompt in record["prompts"]]
    plan = Plan(**{**record, "people": [PlannedPerson(**one) for one in record["people"]], "prompts": prompts})
    try:
        problems = problems_of_plan(plan)
    except (TypeError, KeyError, UserError) as error:  # of the settings in it
        problems = [str(error)]
    refuse(foreign, problems, again)
    return plan


def problems_of_plan(plan: Plan) -> list[str]:
    """What the schema cannot say: settings in their range, plain names, files that stay in the run's folder."""
    names, ids = [person.identity for person in plan.people], [prompt.id for prompt in plan.prompts]
    BenchmarkConfig(
        methods=tuple(plan.methods),
        step_counts=tuple(plan.step_counts),
        ranks=tuple(plan.ranks),
        seeds=tuple(plan.seeds),
        images_at_once=plan.images_at_once,
        threads=plan.threads,
    )
    plan.sampling_config(), Speed(**plan.speed), plan.crop_config()
    for method, rank, steps, person in product(plan.methods, plan.ranks, plan.step_counts, plan.people):
        if method != NONE:
            plan.training_of(method, rank, person, steps)
    problems = problems_of_names(names, "identity") + problems_of_names(ids, "prompt")
    if len(set(names)) < len(names) or len(set(ids)) < len(ids):
        problems.append("an identity or a prompt is there twice")
    problems += [f"{p.identity} is of the class {p.class_name!r}" for p in plan.people if p.class_name not in WORDS]
    problems += [f"{p.reference!r} is no reference" for p in plan.people if p.reference != reference_of(p.identity)]
    problems += [
        f"{prompt.id} has no text for {person.class_name} or no seed for every image"
        for person in plan.people
        for prompt in plan.prompts_of(person)
        if person.class_name not in prompt.filled or set(prompt.noise_seeds) != set(map(str, plan.seeds))
    ]
    problems += [
        f"{key!r} names no base" for key in {*plan.backbone_flags, *plan.drawn_with_flags} - {*BASE, *SINGLE_FILES}
    ]
    if "meta-lora" in plan.methods:
        absent = {person.class_name for person in plan.people} - plan.meta_downs.keys()
        problems += [f"the Meta-Down of {name} is missing" for name in sorted(absent)]
    return problems


def write_plan(run: Path, plan: Plan) -> Path:
    """Write it; a folder that already holds another plan is refused."""
    path = run / "plan.json"
    if path.exists():
        before, now = asdict(read_plan(run)), asdict(plan)
        different = sorted(key for key in now if before[key] != now[key])
        if different:
            raise UserError(
                f"{path} is another plan ({', '.join(different)} differ). Choose another name, so that results of "
                "two plans are never mixed."
            )
        return path
    files.write_json(path, plan)
    return path
