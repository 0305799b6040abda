"""One of several processes that look at people's first gradients on the toy network; torchrun starts it. No test.

python distributed_gradients.py shared|repeated FILE: what that file's found_on finds in one process.
"""

import sys

import test_first_gradients
import test_repeated_gradients
import torch
from stage_one import PEOPLE
from toy import ToyDenoiser, ToyNetwork

from metalora.jobs.processes import joined_processes


def main(what: str, file: str) -> None:
    torch.manual_seed(0)
    denoiser = ToyDenoiser(ToyNetwork().requires_grad_(False))
    with joined_processes(len(PEOPLE), torch.device("cpu")) as ranks:
        if what == "shared":
            found = test_first_gradients.found_on(denoiser, ranks=ranks)._asdict()
        else:
            found = test_repeated_gradients.found_on(denoiser, ranks)
        if ranks.index == 0:
            torch.save(found, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
