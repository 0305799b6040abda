"""plan.json: written once, read whole and checked whole. Whoever made it, what it names stays where it belongs.

It holds no path of the machine: files are named from the run's folder, or from the data that ships.
"""

import json
import os
from dataclasses import asdict
from pathlib import Path

from ...backbones.speed import Speed
from ...config import METHODS, UserError
from ...store import files
from ...store.prompts import WORDS
from ...store.text import decoded, parse_json, problems_of_names
from .plan import FORMAT, Plan, reference_of, sha256_of

DATA = Path(__file__).parents[2] / "data"
SHIPPED, FROM_RUN = "shipped:", "from-run:"  # where the rest of a name begins
SHOWN = 8  # problems of one message


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
    """The plan of a run's folder, as `make_plan` made it: a changed one is refused, and so is another version's."""
    from pydantic import TypeAdapter, ValidationError  # imported late: only a benchmark needs it

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
    if record.pop("sha256", None) != sha256_of(record):
        raise UserError(f"{path} was changed after it was made: its results would not be a plan's. Plan again.")
    try:
        plan = TypeAdapter(Plan).validate_json(json.dumps(record), strict=True)
        plan.sampling_config(), plan.crop_config(), Speed(**plan.speed)
        [plan.training_of(method, rank, plan.people[0], 1) for method in METHODS for rank in plan.ranks]
        problems = problems_of_names([person.identity for person in plan.people], "identity")
        problems += problems_of_names([prompt.id for prompt in plan.prompts], "prompt")
        problems += [f"{p.reference!r} is no reference" for p in plan.people if p.reference != reference_of(p.identity)]
        problems += [f"{p.class_name!r} is no class" for p in plan.people if p.class_name not in WORDS]
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:SHOWN]]
    except (TypeError, KeyError, IndexError, UserError) as error:  # of the settings in it
        problems = [str(error)]
    if problems:
        raise UserError(f"{path} is not a plan of this version ({'; '.join(problems)}). Plan again in another folder.")
    return plan


def write_plan(run: Path, plan: Plan) -> Path:
    """Write it; a folder that already holds another plan is refused."""
    path, now = run / "plan.json", asdict(plan)
    if path.exists():
        before = asdict(read_plan(run))
        different = sorted(key for key in now if before[key] != now[key])
        if different:
            raise UserError(
                f"{path} is another plan ({', '.join(different)} differ). Choose another folder, so that results of "
                "two plans are never mixed."
            )
        return path
    text = json.dumps({**now, "sha256": sha256_of(now)}, indent=2, ensure_ascii=False)
    files.write_bytes(path, f"{text}\n".encode())
    return path
