"""A small picture of a graph for ComfyUI's template browser: its groups, nodes and wires, drawn from the file."""

import io
from typing import Any

from PIL import Image, ImageDraw

from metalora.store.pictures import readable_font

SIZE, MARGIN = (640, 400), 24
PAPER, WIRE, INK = (32, 32, 36), (150, 150, 160), (235, 235, 235)
TITLE = 30  # a node's title bar stands above its position


def thumbnail(graph: dict[str, Any], name: str) -> bytes:
    """A JPEG of SIZE."""
    nodes = {node["id"]: node for node in graph["nodes"]}
    right = max(node["pos"][0] + node["size"][0] for node in nodes.values())
    bottom = max(node["pos"][1] + node["size"][1] for node in nodes.values())
    scale = min((SIZE[0] - 2 * MARGIN) / right, (SIZE[1] - 3 * MARGIN - 30) / (bottom + 60))
    picture = Image.new("RGB", SIZE, PAPER)
    draw = ImageDraw.Draw(picture)
    draw.text((MARGIN, MARGIN / 2), name.split(" ", 1)[1], INK, readable_font(24))

    def at(x: float, y: float) -> tuple[float, float]:
        return MARGIN + x * scale, 2 * MARGIN + 30 + y * scale

    for group in graph["groups"]:
        x, y, width, height = group["bounding"]
        draw.rectangle((*at(x, y), *at(x + width, y + height)), outline=group["color"], width=1)
    for _, source, _, target, *_ in graph["links"]:
        start, end = nodes[source], nodes[target]
        draw.line(
            (*at(start["pos"][0] + start["size"][0], start["pos"][1] + 10), *at(end["pos"][0], end["pos"][1] + 10)),
            WIRE,
        )
    for node in nodes.values():
        (x, y), (width, height) = node["pos"], node["size"]
        draw.rectangle((*at(x, y - TITLE), *at(x + width, y + height)), fill=long(node["bgcolor"]))
        draw.rectangle((*at(x, y - TITLE), *at(x + width, y)), fill=long(node["color"]))
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=90)
    return data.getvalue()


def long(color: str) -> str:
    """ "#233" as Pillow wants it, a little lighter so that it is seen at this size."""
    digits = [min(15, int(digit, 16) * 2) for digit in color.removeprefix("#")]
    return "#" + "".join(f"{digit:x}{digit:x}" for digit in digits)
