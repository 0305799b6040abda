"""Several processes, one training: torchrun starts them, on one machine or more; here they find each other.

And the little that they exchange.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from uuid import uuid4

import torch
import torch.distributed as dist
from torch import Tensor

from ..config import UserError

JOINING = timedelta(minutes=2)  # for all to be there; after it they end with an error, and torchrun tries again
PATIENCE = timedelta(hours=6)  # one process may have to encode many photos while the others wait
LOOK_AGAIN = 0.05  # seconds


@dataclass(frozen=True)
class World:
    """Process `rank` of `size`."""

    rank: int = 0
    size: int = 1

    def add_up(self, tensor: Tensor) -> None:
        """Replace the tensor by its sum over all processes."""
        if self.size > 1:
            dist.all_reduce(tensor)

    def to_first(self, tensor: Tensor, owner: int) -> Tensor:
        """The owner's tensor on process 0, on the CPU there; every process calls this with a tensor of that shape."""
        if owner != 0 and self.rank == owner:
            dist.send(tensor.contiguous(), 0)
        if owner != 0 and self.rank == 0:
            tensor = torch.empty_like(tensor)
            dist.recv(tensor, owner)
        return tensor.cpu()

    def wait(self) -> None:
        """Until every process has come here."""
        if self.size > 1:
            dist.barrier()


ALONE = World()


def process_index() -> int:
    """This process's number as torchrun says it; 0 without torchrun."""
    return int(os.environ.get("RANK", 0))


def device_of_process(device: str) -> str:
    """The same, or for "auto" as one of torchrun's processes its own GPU."""
    if device != "auto" or "LOCAL_RANK" not in os.environ:
        return device
    wanted, found = int(os.environ.get("LOCAL_WORLD_SIZE", 1)), torch.cuda.device_count()
    if 0 < found < wanted:
        raise UserError(f"{wanted} processes on this machine but {found} GPUs: start as many as there are GPUs.")
    return f"cuda:{os.environ['LOCAL_RANK']}" if found else "cpu"


@contextmanager
def joined_processes(batch: int, device: torch.device) -> Iterator[World]:
    """All processes of a torchrun, through NCCL on GPUs and gloo on CPUs; alone without torchrun."""
    size = int(os.environ.get("WORLD_SIZE", 1))
    if size == 1:
        yield ALONE
        return
    if size > batch:
        raise UserError(
            f"A batch of {batch} cannot be shared by {size} processes: each needs a photo of its own in every step. "
            "Raise --batch or start fewer processes."
        )
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    store, rank, size = next(dist.rendezvous("env://", timeout=JOINING))
    fresh = dist.PrefixStore(agreed_start(store, rank, size), store)
    dist.init_process_group(backend, store=fresh, rank=rank, world_size=size, timeout=PATIENCE)
    try:
        yield World(rank, size)
        dist.barrier()  # nobody takes the group down while another still sends
    finally:
        dist.destroy_process_group()


def agreed_start(store: "dist.Store", rank: int, size: int) -> str:
    """A word that all processes of this start have in common, and no process of an earlier start has known.

    torchrun's store outlives a restart, and so do the addresses that the processes of the start before have left in it
    under the same names. Whoever read one waited for a dead process (pytorch issue 135712; since its pull request
    135957 the names carry no count of the restarts, and that count may differ between machines anyhow). Hence: process
    0 draws the word; each other one asks under a word of its own, which no old answer can be to, and says that it has
    heard. What the dead have asked is answered too, and nobody hears it.
    """
    own = uuid4().hex
    if rank > 0:
        store.set(f"metalora/asked/{rank}", own)
        start = store.get(f"metalora/answered/{own}").decode()
        store.set(f"metalora/heard/{start}/{rank}", "")
        return start
    absent, deadline = set(range(1, size)), time.monotonic() + JOINING.total_seconds()
    while absent:
        for other in sorted(absent):
            if store.check([f"metalora/heard/{own}/{other}"]):
                absent.remove(other)
            elif store.check([f"metalora/asked/{other}"]):
                store.set(f"metalora/answered/{store.get(f'metalora/asked/{other}').decode()}", own)
        if time.monotonic() > deadline:
            raise UserError(f"Processes {sorted(absent)} of {size} have not come within {JOINING}. Start again.")
        time.sleep(LOOK_AGAIN)
    return own
