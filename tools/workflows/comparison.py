"""Meta-LoRA beside InstantID, PhotoMaker and FLUX.2's references: one photo, one prompt, one measure."""

from metalora.store.images import demo_portrait

from .graph import Column, Graph, Node, Schemas, Wire
from .parts import flux_loaders, sampled, words

SCENE = "a photo of a woman on a beach"
IMAGES, SIZE = 4, 1024
INSTANTID_SIZE = 1016  # its authors' way around watermarks
ROW = 450  # of a method's images


def comparison(schemas: Schemas) -> Graph:
    """What is compared first, in the opening view; then a column for each method."""
    graph = Graph(schemas, "Compare with other methods")
    graph.column("Read me", "note", 420).note(words("compare"))
    person = graph.column("The person", "load")
    photo = person.add("LoadImage", "The one photo", image=demo_portrait().name)["IMAGE"]
    unseen = person.add("MetaLoRA_LoadPhotos", "Photos that stay unseen", photos_folder="held-out")["photos"]
    shown = graph.column("Images", "judge", 380), graph.column("Images", "judge", 380), graph.column("Scores", "judge")
    flux = flux_loaders(graph.column("FLUX.1-dev", "load"))
    made = {"Meta-LoRA": meta_lora(graph.column("Meta-LoRA", "learn", 400), flux, photo)}
    sdxl = graph.column("SDXL", "load").add("CheckpointLoaderSimple", ckpt_name="sd_xl_base_1.0.safetensors")
    made["InstantID"] = instantid(graph.column("InstantID", "make"), sdxl, photo)
    made["PhotoMaker"] = photomaker(graph.column("PhotoMaker", "make"), sdxl, photo)
    made["FLUX.2"] = references(graph.column("FLUX.2 with a reference", "make"), photo)
    judge = graph.column("Judge", "judge")
    for number, (method, images) in enumerate(made.items()):
        name = f"compare-{method.lower()}"
        wires = {"images": images, "held_out": unseen, "reference": photo}
        scores = judge.add("MetaLoRA_Evaluate", method, **wires, prompts=SCENE, name=name)
        *pictures, tables = shown
        tables.add("PreviewAny", method, least=ROW / 2, source=scores["table"])
        prefix = f"meta_lora/{name}"
        pictures[number % 2].add("SaveImage", method, least=ROW, images=images, filename_prefix=prefix)
    return graph


def meta_lora(column: Column, flux: tuple[Wire, Wire, Wire], photo: Wire) -> Wire:
    """Ours: trained on crops of the photo."""
    model, clip, vae = flux
    down = column.add("MetaLoRA_LoadMetaDown", file="woman.safetensors")["meta_down"]
    crops = column.add("MetaLoRA_AugmentFaceCrops", photo=photo)
    wires = {"model": model, "clip": clip, "vae": vae, "meta_down": down}
    wires |= {"crops": crops["crops"], "heads": crops["heads"]}
    trained = column.add("MetaLoRA_TrainPersonalization", **wires, class_name="woman", name="compare")
    text = column.add("CLIPTextEncode", clip=clip, text=SCENE)["CONDITIONING"]
    text = column.add("FluxGuidance", conditioning=text, guidance=3.5)["CONDITIONING"]
    latent = column.add("EmptySD3LatentImage", width=SIZE, height=SIZE, batch_size=IMAGES)["LATENT"]
    given = {"model": trained["personal_model"], "text": text, "latent": latent}
    samples = sampled(column, **given, title="Meta-LoRA", steps=30)
    return column.add("VAEDecode", samples=samples, vae=vae)["IMAGE"]


def sdxl_images(column: Column, sdxl: Node, given: dict[str, Wire], size: int, cfg: float, method: str) -> Wire:
    """Images of SDXL; `given` are its model, positive and negative."""
    latent = column.add("EmptyLatentImage", width=size, height=size, batch_size=IMAGES)["LATENT"]
    samples = column.add(
        "KSampler", method, **given, latent_image=latent, steps=30, cfg=cfg, sampler_name="euler", scheduler="normal"
    )["LATENT"]
    return column.add("VAEDecode", samples=samples, vae=sdxl["VAE"])["IMAGE"]


def instantid(column: Column, sdxl: Node, photo: Wire) -> Wire:
    """InstantID: a face embedding, and the landmarks of the face as a ControlNet's picture."""
    adapter = column.add("InstantIDModelLoader", instantid_file="ip-adapter.bin")["INSTANTID"]
    faces = column.add("InstantIDFaceAnalysis")["FACEANALYSIS"]
    control = column.add("ControlNetLoader", control_net_name="instantid.safetensors")["CONTROL_NET"]
    positive = column.add("CLIPTextEncode", "Prompt", clip=sdxl["CLIP"], text=SCENE)["CONDITIONING"]
    negative = column.add("CLIPTextEncode", "Negative prompt", clip=sdxl["CLIP"], text="")["CONDITIONING"]
    wires = {"instantid": adapter, "insightface": faces, "control_net": control, "image": photo}
    applied = column.add("ApplyInstantID", **wires, model=sdxl["MODEL"], positive=positive, negative=negative)
    given = {"model": applied["MODEL"], "positive": applied["positive"], "negative": applied["negative"]}
    return sdxl_images(column, sdxl, given, INSTANTID_SIZE, 4.5, "instantid")


def photomaker(column: Column, sdxl: Node, photo: Wire) -> Wire:
    """PhotoMaker: the photo's embedding in place of the word before `photomaker`."""
    adapter = column.add("PhotoMakerLoader", photomaker_model_name="photomaker-v1.bin")["PHOTOMAKER"]
    text = SCENE.replace("woman", "woman photomaker")
    wires = {"photomaker": adapter, "image": photo, "clip": sdxl["CLIP"]}
    positive = column.add("PhotoMakerEncode", **wires, text=text)["CONDITIONING"]
    negative = column.add("CLIPTextEncode", "Negative prompt", clip=sdxl["CLIP"], text="")["CONDITIONING"]
    given = {"model": sdxl["MODEL"], "positive": positive, "negative": negative}
    return sdxl_images(column, sdxl, given, SIZE, 5.0, "photomaker")


def references(column: Column, photo: Wire) -> Wire:
    """FLUX.2-dev: the photo's latent as tokens beside those of the image."""
    model = column.add("UNETLoader", unet_name="flux2_dev_fp8mixed.safetensors")["MODEL"]
    clip = column.add("CLIPLoader", clip_name="mistral_3_small_flux2_fp8.safetensors", type="flux2")["CLIP"]
    vae = column.add("VAELoader", vae_name="flux2-vae.safetensors")["VAE"]
    small = column.add("ImageScaleToTotalPixels", image=photo, upscale_method="area", megapixels=1.0)["IMAGE"]
    seen = column.add("VAEEncode", pixels=small, vae=vae)["LATENT"]
    text = column.add("CLIPTextEncode", clip=clip, text=SCENE.replace("a woman", "this woman"))["CONDITIONING"]
    text = column.add("FluxGuidance", conditioning=text, guidance=4.0)["CONDITIONING"]
    text = column.add("ReferenceLatent", conditioning=text, latent=seen)["CONDITIONING"]
    samples = column.add(
        "SamplerCustomAdvanced",
        noise=column.add("RandomNoise")["NOISE"],
        guider=column.add("BasicGuider", model=model, conditioning=text)["GUIDER"],
        sampler=column.add("KSamplerSelect", sampler_name="euler")["SAMPLER"],
        sigmas=column.add("Flux2Scheduler", steps=20, width=SIZE, height=SIZE)["SIGMAS"],
        latent_image=column.add("EmptyFlux2LatentImage", width=SIZE, height=SIZE, batch_size=IMAGES)["LATENT"],
    )["output"]
    return column.add("VAEDecode", samples=samples, vae=vae)["IMAGE"]
