"""Several processes, one training: torchrun starts them, on one machine or more; here they find each other."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch

from ..config import UserError
from ..method.ranks import ALONE, Ranks

JOINING = timedelta(minutes=2)  # gloo was seen to wait for ever for its peers after a restart; torchrun tries again
PATIENCE = timedelta(hours=6)  # one process may have to encode many photos while the others wait


def process_index() -> int:
    """This process's number as torchrun says it; 0 without torchrun."""
    return int(os.environ.get("RANK", 0))


@contextmanager
def joined_processes(batch: int, device: torch.device) -> Iterator[Ranks]:
    """All processes of a torchrun, through NCCL on GPUs and gloo on CPUs; alone without torchrun."""
    count = int(os.environ.get("WORLD_SIZE", 1))
    if count == 1:
        yield ALONE
        return
    if count > batch:
        raise UserError(
            f"A batch of {batch} cannot be shared by {count} processes: each needs a photo of its own in every step. "
            "Raise --batch or start fewer processes."
        )
    import torch.distributed as dist

    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=JOINING)
    dist.barrier()
    dist.distributed_c10d._set_pg_timeout(PATIENCE, dist.group.WORLD)
    try:
        yield Ranks(dist.get_rank(), count)
    finally:
        dist.destroy_process_group()
