"""A job with its progress on the terminal, and its numbers in a file."""

from pathlib import Path

from ..console import Console
from ..jobs import Job, Result, run


def driven(job: Job[Result]) -> Result:
    """Run a job with its progress on the terminal."""
    with Console().listening() as console:
        return run(job, console)


def written(report: object, path: Path | None) -> None:
    """All numbers of a report as JSON, where a file was asked for."""
    from ..store.files import write_json

    if path is not None:
        write_json(path, report)
        print(f"wrote {path}")
