"""A job with its progress on the terminal."""

import logging

from ..console import Console
from ..jobs import Job, Result, run


def driven(job: Job[Result], *, quiet: bool = False) -> Result:
    """Run a job with its progress on the terminal, unless it is quiet; signals stop it where all is saved."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns of a kernel that 4 bits on a CPU could use
    with Console(quiet=quiet).listening() as console:
        return run(job, console)
