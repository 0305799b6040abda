"""Load Demo Person: rendered people that come with the pack, so that every workflow runs before a photo is chosen."""

from functools import cache

from comfy_api.latest import io

from ..metalora.jobs.benchmark.prepare import mini_benchmark
from ..metalora.store.images import read_photo
from ..metalora.store.manifest import Identity, read_manifest
from .pictures import image_of
from .sockets import CATEGORY


class LoadDemoPerson(io.ComfyNode):
    """One photo to learn from, and photos of the same person to compare with."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MetaLoRA_LoadDemoPerson",
            display_name="Load Demo Person",
            category=CATEGORY,
            description="A rendered person of the miniature's world, nobody real: one photo to learn from, and others "
            "that stay unseen. Replace it with Load Image when you use your own photos.",
            inputs=[io.Combo.Input("person", options=list(people()), tooltip="Who; all are in no training.")],
            outputs=[
                io.Image.Output(display_name="photo", tooltip="The photo to learn from."),
                io.Image.Output(display_name="held_out", is_output_list=True, tooltip="Photos that stay unseen."),
                io.String.Output(display_name="class_name", tooltip="woman or man."),
            ],
        )

    @classmethod
    def execute(cls, person: str) -> io.NodeOutput:
        chosen = people()[person]
        photo, *held_out = (image_of(read_photo(one.path)) for one in (chosen.reference, *chosen.held_out))
        return io.NodeOutput(photo, held_out, chosen.class_name)


@cache
def people() -> dict[str, Identity]:
    """Those of the mini benchmark who have held-out photos."""
    manifest = read_manifest(mini_benchmark() / "manifest.jsonl", look=False)
    return {person.name: person for person in manifest.people if person.held_out}
