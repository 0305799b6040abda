"""Meta-LoRA for ComfyUI. ComfyUI imports this file from custom_nodes and asks `comfy_entrypoint` for the nodes.

Outside ComfyUI importing it does nothing: the headless package is `metalora`.
"""

WEB_DIRECTORY = "./web"  # web/docs: a help page for each node


async def comfy_entrypoint():  # type: ignore[no-untyped-def]  # ComfyUI's types exist only inside ComfyUI
    """The nodes; called by ComfyUI alone."""
    from .nodes import Extension

    return Extension()
