"""Write workflows/*.json and their thumbnails: python -m tools.workflows.write

The schemas are those that tests/record_nodes.py recorded from a real ComfyUI.
"""

import json
from pathlib import Path

from metalora.store.files import write_bytes

from .graphs import GRAPHS
from .thumbnail import thumbnail

ROOT = Path(__file__).parents[2]
SCHEMAS = ROOT / "tests" / "data" / "comfyui_nodes.json"
FOLDER = ROOT / "workflows"


def main() -> None:
    schemas = json.loads(SCHEMAS.read_text())
    for name, build in GRAPHS.items():
        graph = build(schemas).as_file()
        write_bytes(FOLDER / f"{name}.json", (json.dumps(graph, indent=1) + "\n").encode())
        write_bytes(FOLDER / f"{name}.jpg", thumbnail(graph, name))
        print(f"wrote {name}: {len(graph['nodes'])} nodes")


if __name__ == "__main__":
    main()
