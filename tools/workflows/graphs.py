"""The shipped workflows. Each is a function of the recorded schemas that returns a graph."""

from collections.abc import Callable
from functools import partial

from metalora.settings import PRESETS
from metalora.store.images import demo_portrait

from .bases import BASES, MODEL_FILES, Base
from .comparison import comparison
from .graph import Graph, Schemas
from .parts import flux_loaders, loaders, miniature, sampled, words
from .schemas import NEWEST, OLDEST

ROW = 266  # pixels of a picture that is looked at


def demo(schemas: Schemas) -> Graph:
    """The whole path on the miniature."""
    graph = Graph(schemas, "Miniature demo")
    load = graph.column("Load", "load", 280)
    load.note(words("demo"))
    small = load.add("MetaLoRA_LoadMiniature")
    person = load.add("MetaLoRA_LoadDemoPerson")
    down = load.add("MetaLoRA_LoadMetaDown", file="shipped: miniature.safetensors")
    latent = load.add("EmptySD3LatentImage", "Four images", **miniature("width", "height"), batch_size=4)["LATENT"]
    look = graph.column("What is learned", "learn", 238)
    crops = look.add("MetaLoRA_AugmentFaceCrops", photo=person["photo"], learn_from="whole", **miniature("resolution"))
    look.add("PreviewImage", "The photo", least=ROW, images=crops["sheet"])
    learn = graph.column("Learn", "learn", 238)
    trained = learn.add(
        "MetaLoRA_TrainPersonalization",
        model=small["MODEL"],
        clip=small["CLIP"],
        vae=small["VAE"],
        crops=crops["crops"],
        heads=crops["heads"],
        meta_down=down["meta_down"],
        class_name=person["class_name"],
        name="demo",
        **miniature("steps", "rank", "learning_rate", "flips", "background_weight", "time_shift"),
    )
    look.add("PreviewImage", "Loss", least=ROW, images=trained["loss_plot"])
    make = graph.column("Make images", "make", 238)
    text = make.add("CLIPTextEncode", clip=small["CLIP"], text="a photo of a woman")["CONDITIONING"]
    text = make.add("FluxGuidance", conditioning=text, **miniature("guidance"))["CONDITIONING"]
    given = {"text": text, "latent": latent, "steps": PRESETS["miniature"]["sampling_steps"]}
    without = sampled(make, model=small["MODEL"], title="Without the LoRA", **given)
    wearing = sampled(make, model=trained["personal_model"], title="With it", **given)
    show = graph.column("Look and keep", "make", 238)
    show.add("MetaLoRA_MergeToLora", adapter=trained["adapter"], name="demo")
    base = show.add("VAEDecode", samples=without, vae=small["VAE"])["IMAGE"]
    made = show.add("VAEDecode", samples=wearing, vae=small["VAE"])["IMAGE"]
    show.add("SaveImage", "Without the LoRA", least=ROW, images=base, filename_prefix="meta_lora/demo-base")
    show.add("SaveImage", "With it", least=ROW, images=made, filename_prefix="meta_lora/demo")
    judge = graph.column("Judge", "judge", 238)
    scores = judge.add(
        "MetaLoRA_Evaluate",
        images=made,
        held_out=person["held_out"],
        reference=person["photo"],
        prompts="a photo of a woman",
        name="demo",
    )
    judge.add("PreviewAny", "Scores", least=270, source=scores["table"])
    judge.add("PreviewImage", "Images with scores", least=ROW, images=scores["page"])
    return graph


def personalize(base: Base, schemas: Schemas) -> Graph:
    """A base of the user's and a photo of one's own; no Meta-Down is needed."""
    graph = Graph(schemas, f"Personalize {base.name}")
    links = "\n".join(f"- [{file}]({MODEL_FILES[file][1]}) in models/{MODEL_FILES[file][0]}" for file in base.files)
    load = graph.column("Load", "load", 340)
    load.note(words("personalize").replace("FILES", links).replace("BASE", base.name))
    model, clip, vae = loaders(load, base)
    look = graph.column("What is learned from", "load", 290)
    photo = look.add("LoadImage", "The one photo", least=320, image=demo_portrait().name)["IMAGE"]
    crops = look.add("MetaLoRA_AugmentFaceCrops", photo=photo)
    look.add("PreviewImage", "Crops", least=220, images=crops["sheet"])
    learn = graph.column("Learn", "learn", 290)
    wires = {"model": model, "clip": clip, "vae": vae, "crops": crops["crops"], "heads": crops["heads"]}
    trained = learn.add("MetaLoRA_TrainPersonalization", **wires, class_name="woman", steps=625)
    make = graph.column("Make images", "make", 280)
    drawn = trained["personal_model"]
    if base.draws:
        other = make.add("UNETLoader", "Draws the images", unet_name=base.draws)["MODEL"]
        drawn = make.add("LoraModelLoader", model=other, lora=trained["lora"], strength_model=1.0)["model"]
    text = make.add("CLIPTextEncode", clip=clip, text="a photo of a woman on a beach")["CONDITIONING"]
    negative = None
    if base.guidance is not None:
        text = make.add("FluxGuidance", conditioning=text, guidance=base.guidance)["CONDITIONING"]
    if base.cfg != 1:
        negative = make.add("CLIPTextEncode", "Led away from", clip=clip, text="")["CONDITIONING"]
    latent = make.add(base.latent, width=1024, height=1024)["LATENT"]
    how = {"negative": negative, "cfg": base.cfg, "steps": base.steps}
    samples = sampled(make, model=drawn, text=text, latent=latent, title="With the LoRA", **how)
    show = graph.column("Look and keep", "make", 330)
    show.add("MetaLoRA_MergeToLora", adapter=trained["adapter"])
    show.add("PreviewImage", "Loss", images=trained["loss_plot"])
    show.add("SaveImage", least=450, images=show.add("VAEDecode", samples=samples, vae=vae)["IMAGE"])
    return graph


def judge(schemas: Schemas) -> Graph:
    """Images of any method, scored."""
    graph = Graph(schemas, "Evaluate a batch of images")
    graph.column("Read me", "note", 420).note(words("evaluate"))
    load = graph.column("Pictures", "load")
    images = load.add("MetaLoRA_LoadPhotos", "Generated images", photos_folder="generated")["photos"]
    unseen = load.add("MetaLoRA_LoadPhotos", "Held-out photos", photos_folder="held-out")["photos"]
    reference = load.add("LoadImage", "The photo that was learned from", image=demo_portrait().name)["IMAGE"]
    scored = graph.column("Judge", "judge")
    scores = scored.add("MetaLoRA_Evaluate", images=images, held_out=unseen, reference=reference)
    look = graph.column("Look", "judge", 420)
    look.add("PreviewAny", "Scores", least=200, source=scores["table"])
    look.add("PreviewImage", "Images with scores", least=ROW, images=scores["page"])
    look.add("PreviewImage", "Likeness", least=ROW, images=scores["plot"])
    return graph


def two_people(schemas: Schemas) -> Graph:
    """Two LoRA files, each on its own half of the picture."""
    graph = Graph(schemas, "Two people in one picture")
    graph.column("Read me", "note", 320).note(words("two-people"))
    load = graph.column("Load", "load")
    model, clip, vae = flux_loaders(load)
    empty = load.add("SolidMask", "Nowhere", value=0.0, width=1024, height=1024)["MASK"]
    half = load.add("SolidMask", "Half of it", value=1.0, width=512, height=1024)["MASK"]
    latent = load.add("EmptySD3LatentImage", width=1024, height=1024)["LATENT"]
    conditions = []
    for side, left, who in (("left", 0, "woman"), ("right", 512, "man")):
        people = graph.column(f"The {who}", "learn")
        where = {"destination": empty, "source": half, "x": left, "y": 0, "operation": "add"}
        mask = people.add("MaskComposite", f"The {side} half", **where)["MASK"]
        file = f"{who}_00001_.safetensors"
        hook = people.add("CreateHookLoraModelOnly", f"The {who}'s LoRA", lora_name=file)["HOOKS"]
        scene = f"a photo of a woman and a man in a garden, a {who} on the {side}"
        text = people.add("CLIPTextEncode", f"The {who}'s prompt", clip=clip, text=scene)["CONDITIONING"]
        wires = {"cond_NEW": text, "mask": mask, "hooks": hook}
        conditions.append(people.add("ConditioningSetProperties", **wires)["CONDITIONING"])
    make = graph.column("Make the picture", "make")
    both = make.add("ConditioningCombine", conditioning_1=conditions[0], conditioning_2=conditions[1])["CONDITIONING"]
    text = make.add("FluxGuidance", conditioning=both, guidance=3.5)["CONDITIONING"]
    samples = sampled(make, model=model, text=text, latent=latent, title="Both people", steps=30)
    make.add("SaveImage", least=300, images=make.add("VAEDecode", samples=samples, vae=vae)["IMAGE"])
    return graph


def benchmark(schemas: Schemas) -> Graph:
    """Plan, run, report, on the miniature."""
    graph = Graph(schemas, "Benchmark methods")
    graph.column("Read me", "note", 420).note(words("benchmark"))
    load = graph.column("Load", "load")
    small = load.add("MetaLoRA_LoadMiniature")
    base = {"model": small["MODEL"], "clip": small["CLIP"], "vae": small["VAE"]}
    work = graph.column("Plan and run", "learn", 400)
    settings = miniature(
        "resolution", "learn_from", "width", "height", "sampling_steps", "guidance", "rank", "learning_rate"
    )
    chosen = {"methods": "none, lora, meta-lora", "people": 2, "prompts_each": 2, "steps": 100}
    plan = work.add("MetaLoRA_BenchmarkPlan", **base, **chosen, **settings)  # the Meta-Downs that ship
    done = work.add("MetaLoRA_BenchmarkRun", **base, plan=plan["benchmark"])
    look = graph.column("Look", "judge", 420)
    look.add("PreviewAny", "How much", source=plan["about"])
    look.add("PreviewImage", "People and methods", least=ROW, images=done["images"])
    look.add("MetaLoRA_BenchmarkReport", benchmark=done["benchmark"])
    return graph


def stage_one(schemas: Schemas) -> Graph:
    """Many people, one Meta-Down."""
    graph = Graph(schemas, "Meta-train a Meta-Down")
    graph.column("Read me", "note", 420).note(words("stage-1"))
    load = graph.column("Load", "load")
    model, clip, vae = flux_loaders(load)
    learn = graph.column("Learn", "learn", 400)
    wires = {"model": model, "clip": clip, "vae": vae}
    chosen = {"dataset": "people", "name": "people", "preset": "flux", "class_name": "all"}
    made = learn.add("MetaLoRA_MetaTrain", **wires, **chosen, gradient_checkpointing=True)
    look = graph.column("Look", "judge", 420)
    look.add("PreviewImage", "Progress", least=ROW, images=made["progress"])
    look.add("PreviewAny", "Where it is", source=made["file"])
    return graph


GRAPHS: dict[str, Callable[[Schemas], Graph]] = {  # a link to a template takes no spaces
    "1_Miniature_demo": demo,
    **{f"2_Personalize_{base.name.replace(' ', '_')}": partial(personalize, base) for base in BASES},
    "3_Evaluate_a_batch_of_images": judge,
    "4_Two_people_in_one_picture": two_people,
    "5_Benchmark_methods": benchmark,
    "6_Meta-train_a_Meta-Down": stage_one,
    "7_Compare_with_other_methods": comparison,
}


def first_version(name: str) -> str:
    """The oldest ComfyUI that has every node of a workflow, but those of other packs."""
    newer = name.startswith(("2_", "7_")) and name != "2_Personalize_FLUX.1-dev"
    return NEWEST if newer else OLDEST
