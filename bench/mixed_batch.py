"""One step of stage 1: a batch of four people, against a batch of four photos of one, and four batches of one photo.

    python -m bench.mixed_batch                                    # the miniature's size, on the CPU
    python -m bench.mixed_batch --size flux-dev --pixels 512 --device cuda --precision bf16

All that stage 1 does in a step is measured: wearing the heads, forward, backward, and both optimizers, with the
Meta-Down moving. The three take turns in one run; the ratios are of medians.
"""

import argparse
import sys
from functools import partial

import torch

from metalora.backbones.keys import sites
from metalora.backbones.protocol import Prompt
from metalora.config_meta_train import MetaTrainConfig
from metalora.method.adapter import random_meta_down
from metalora.method.buckets import Person, Sample
from metalora.method.meta_train import Batch, MetaTraining, meta_train

from .measuring import Steps
from .reporting import Loops, reported
from .worlds import SIZES, options, world


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--mixed-alone", action="store_true", help="leave out what it is compared with")
    parser.add_argument(
        "--base", action="store_true", help="the frozen base too, without adapters: what bounds the ratio"
    )
    parser.set_defaults(batch=4)
    arguments = parser.parse_args()
    everybody = list(range(arguments.batch))
    loops: Loops = {"mixed": partial(stage_one, batches=[everybody])}
    if not arguments.mixed_alone:
        loops["one person"] = partial(stage_one, batches=[[0] * arguments.batch])
        loops["separate"] = partial(stage_one, batches=[[one] for one in everybody])
    if arguments.base:
        loops["base"] = partial(base_alone, batches=[everybody])
        loops["base, separate"] = partial(base_alone, batches=[[one] for one in everybody])
    return reported(arguments, loops, ratios)


def ratios(report: dict, arguments: argparse.Namespace) -> dict[str, float]:
    """What it costs that a batch holds several people."""
    seconds = report["seconds"]
    others = {"mixed_to_one_person": "one person", "mixed_to_separate": "separate"}
    found = {ratio: seconds["mixed"] / seconds[name] for ratio, name in others.items() if name in seconds}
    return found | ({"base_to_separate": seconds["base"] / seconds["base, separate"]} if "base" in seconds else {})


def base_alone(arguments: argparse.Namespace, batches: list[list[int]]) -> Steps:
    """Forward, and backward to the latents: what every step on the frozen base needs at least."""
    denoiser, prompt, latents = world(arguments)
    while True:
        for whose in batches:
            noisy = latents[:1].repeat(len(whose), 1, 1, 1).to(arguments.device).requires_grad_()
            loss = denoiser(noisy, torch.full((len(whose),), 0.5), prompt).square().mean()
            loss.backward()
        yield loss.item()


def stage_one(arguments: argparse.Namespace, batches: list[list[int]]) -> Steps:
    """Yield after each round of these batches; a batch says whose photos it holds."""
    denoiser, prompt, latents = world(arguments)
    config = MetaTrainConfig(steps=1_000_000, bucket_steps=1_000_000, warmup_steps=0, batch=len(batches[0]))
    chosen = sites(SIZES[arguments.size], config.sites, fused=False)
    meta_down = random_meta_down(chosen, config.meta_rank, torch.Generator().manual_seed(0))
    people = [Person(str(number), "person", ((arguments.pixels, arguments.pixels),)) for number in range(4)]
    training = MetaTraining(chosen, meta_down, [people], config, arguments.device)

    def given():  # type: ignore[no-untyped-def]
        for step in range(config.steps):
            whose = batches[step % len(batches)]
            samples = [Sample(slot, person, 0, False) for slot, person in enumerate(whose)]
            expanded = Prompt(*(part.expand(len(whose), *part.shape[1:]) for part in prompt))
            clean = latents[:1].expand(len(whose), -1, -1, -1).to(arguments.device)
            yield Batch(step, samples, clean, expanded)

    with training.adapters.attached(denoiser.network):
        for step in meta_train(denoiser, training, given(), config):
            if step.index % len(batches) == 0:
                yield step.loss


if __name__ == "__main__":
    sys.exit(main())
