"""How much of the reproduction is done: all of it, the claim alone, minutes of it, or seconds of it."""

from dataclasses import dataclass

TRAINED = ("lora", "lora-crops", "meta-lora")  # the methods that train; `none` is the base alone

# Chosen for LoRA + crops on validation people (tools/miniature/README.md); the batch of 1 is the paper's.
STAGE_TWO = "--time-shift 0.5 --background-weight 0.1 --average-steps 50"
MEASURED = f"--captions photo {STAGE_TWO} --together 8"
AS_IN_THE_PAPER = f"--captions class {STAGE_TWO} --together 8"


@dataclass(frozen=True)
class Size:
    """The step counts are the paper's where nothing else is said."""

    rendered: int  # people, both classes together
    methods: tuple[str, ...] = ("none", *TRAINED)
    step_counts: tuple[int, ...] = (250, 375, 500, 625, 750)
    rank: int = 1  # of every piece but `ranks`: the paper's
    ranks: tuple[int, ...] = (1, 2, 4, 8, 16)
    rank_steps: tuple[int, ...] = (375, 625)
    rank_downs: str = "trained"  # the piece whose Meta-Downs `ranks` is on: r1 bounds the rank
    meta_rank: int = 16  # r1 of the preset; of a random Meta-Down and of what LoRAs share, too
    meta_ranks: tuple[int, ...] = (4, 64)  # others
    people: tuple[int, ...] = (10, 40)  # of each class; all of them are the piece `trained`
    starts: bool = True  # stage 1 from a random Meta-Down, its start alone, and the other start
    head_loss: bool = True  # stage 1's loss weighted as stage 2's
    even_rows: bool = True  # against the rows as they were trained
    no_warm_up: bool = True
    loras: tuple[int, ...] = (8, 32, 128)  # of each class
    base: str = "--backbone miniature"
    stage_one: str = "--preset miniature --time-shift 0.5"
    stage_one_work: int = 2_000 * 8  # steps x batch
    stage_two: str = STAGE_TWO
    stage_two_steps: int = 375
    measured: str = MEASURED  # flags of `benchmark plan`
    measured_people: int = 16
    images: int = 20  # of each of them, for each variant
    sampling_steps: int = 24


SIZES = {
    "miniature": Size(rendered=400),
    "claim": Size(  # less than an hour of two cores after stage 1; of people who are given (--manifest)
        rendered=400,
        methods=("none", "lora-crops", "meta-lora"),
        step_counts=(250, 375, 625),
        measured=f"{MEASURED} --people 32 --prompts-each 5 --seeds 0",
        measured_people=32,
        images=5,
    ),
    "control": Size(  # trained against random on people who are given, with the paper's captions
        rendered=400,
        methods=("meta-lora",),
        step_counts=(125, 250, 375),
        measured=f"{AS_IN_THE_PAPER} --people 32 --prompts-each 5 --seeds 0",
        measured_people=32,
        images=5,
    ),
    "rank-4": Size(  # the claim and the control at the miniature's own rank, on people who are given
        rendered=96,
        methods=("none", "lora-crops", "meta-lora"),
        step_counts=(250, 375, 500, 625),
        rank=4,
        stage_one="--preset miniature-5-minutes --time-shift 0.5 --start repeated --meta-rank 16 --limit-people 44 "
        "--start-people 44",
        stage_one_work=300 * 8 + 44 * 8 * 10,
        measured=f"{AS_IN_THE_PAPER} --people 32 --prompts-each 5 --seeds 0",
        measured_people=32,
        images=5,
    ),
    "sweeps": Size(  # each with one thing changed, on stage 1 of five minutes
        rendered=96,
        methods=("none", "lora-crops", "meta-lora"),
        step_counts=(125, 250),
        ranks=(1, 4, 16),
        rank_steps=(250,),
        rank_downs="meta-rank-16-down",
        meta_rank=4,
        meta_ranks=(16, 64),
        people=(4, 12),
        loras=(8, 32),
        stage_one="--preset miniature-5-minutes --time-shift 0.5",
        stage_one_work=300 * 8,
        stage_two=f"{STAGE_TWO} --steps 250",
        stage_two_steps=250,
        measured=f"{AS_IN_THE_PAPER} --people 16 --prompts-each 5 --seeds 0",
        images=5,
    ),
    "five-minutes": Size(
        rendered=72,
        methods=("none", "lora-crops", "meta-lora"),
        step_counts=(125, 250),
        ranks=(4,),
        rank_steps=(250,),
        meta_rank=4,
        meta_ranks=(),
        people=(),
        starts=False,
        head_loss=False,
        even_rows=False,
        no_warm_up=False,
        loras=(8,),
        stage_one="--preset miniature-5-minutes --time-shift 0.5",
        stage_one_work=300 * 8,
        measured=f"{AS_IN_THE_PAPER} --prompts-each 5 --seeds 0",
        images=5,
    ),
    "small": Size(  # for the test: every path, nothing learned
        rendered=4,
        step_counts=(1, 2),
        ranks=(1, 2),
        rank_steps=(1,),
        meta_ranks=(4,),
        people=(2,),
        loras=(2,),
        base="--backbone tiny",
        stage_one="--preset miniature --steps 4 --bucket-steps 4 --warmup-steps 1 --batch 2 --bucket-people 2 "
        "--resolution 64 --validation-people 0 --limit-people 3",
        stage_one_work=8,
        stage_two="--steps 2 --resolution 64",
        stage_two_steps=2,
        measured="--people 2 --prompts-each 1 --seeds 0 --clip none --resolution 64 --width 64 --height 64 "
        "--sampling-steps 1",
        measured_people=2,
        images=1,
        sampling_steps=1,
    ),
}
