"""The ComfyUI side: schema in, one job, NodeOutput out. No maths and no file formats here.

The headless core comes first; there are no nodes yet.
"""


def extension():  # type: ignore[no-untyped-def]  # ComfyUI's types exist only inside ComfyUI
    """The extension ComfyUI asks for, with its list of nodes."""
    from comfy_api.latest import ComfyExtension, io

    class MetaLoRAExtension(ComfyExtension):
        async def get_node_list(self) -> list[type[io.ComfyNode]]:
            return []

    return MetaLoRAExtension()
