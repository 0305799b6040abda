"""One of several processes that look at people's first gradients on the toy network; torchrun starts it. No test.

python distributed_gradients.py FILE: what test_first_gradients.found_on finds in one process.
"""

import sys

import torch
from stage_one import PEOPLE
from test_first_gradients import META_RANK, loss_of
from toy import TOY_SITES, ToyDenoiser, ToyNetwork

from metalora.jobs.processes import joined_processes
from metalora.method.first_gradients import TURNS, FirstGradients, random_directions


def main(file: str) -> None:
    torch.manual_seed(0)
    denoiser = ToyDenoiser(ToyNetwork().requires_grad_(False))
    with joined_processes(len(PEOPLE), torch.device("cpu")) as ranks:
        directions = random_directions(TOY_SITES, META_RANK, seed=0)
        gradients = FirstGradients(TOY_SITES, directions, ranks=ranks)
        with gradients.heard(denoiser.network):
            for turn in range(TURNS):
                if turn:
                    gradients.turn()
                for person in PEOPLE[ranks.index :: ranks.count]:
                    loss_of(person.name, denoiser).backward()
                    gradients.counted()
        found = gradients.found(META_RANK)
        if ranks.index == 0:
            torch.save(found._asdict(), file)


if __name__ == "__main__":
    main(sys.argv[1])
