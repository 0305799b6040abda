"""A job with its progress on the terminal."""

from ..console import Console
from ..jobs import Job, Result, run


def driven(job: Job[Result]) -> Result:
    """Run a job with its progress on the terminal."""
    with Console().listening() as console:
        return run(job, console)
