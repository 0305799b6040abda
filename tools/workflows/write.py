"""Write workflows/*.json with their thumbnails, and subgraphs/*.json: python -m tools.workflows.write"""

import json
from pathlib import Path
from typing import Any

from metalora.store.files import write_bytes

from .blueprint import NAME, photo_to_lora
from .graphs import GRAPHS, first_version
from .schemas import NEWEST, schemas_for
from .thumbnail import thumbnail

ROOT = Path(__file__).parents[2]


def main() -> None:
    for name, build in GRAPHS.items():
        graph = build(schemas_for(first_version(name))).as_file()
        write(f"workflows/{name}.json", graph)
        write_bytes(ROOT / "workflows" / f"{name}.jpg", thumbnail(name))
    write(f"subgraphs/{NAME}.json", photo_to_lora(schemas_for(NEWEST)))


def write(path: str, graph: dict[str, Any]) -> None:
    write_bytes(ROOT / path, (json.dumps(graph, indent=1) + "\n").encode())
    print(f"wrote {path}: {len(graph['nodes'])} nodes")


if __name__ == "__main__":
    main()
