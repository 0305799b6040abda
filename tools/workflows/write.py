"""Write workflows/*.json and their thumbnails: python -m tools.workflows.write"""

import json
from pathlib import Path

from metalora.store.files import write_bytes

from .graphs import GRAPHS, first_version
from .schemas import schemas_for
from .thumbnail import thumbnail

FOLDER = Path(__file__).parents[2] / "workflows"


def main() -> None:
    for name, build in GRAPHS.items():
        graph = build(schemas_for(first_version(name))).as_file()
        write_bytes(FOLDER / f"{name}.json", (json.dumps(graph, indent=1) + "\n").encode())
        write_bytes(FOLDER / f"{name}.jpg", thumbnail(graph, name))
        print(f"wrote {name}: {len(graph['nodes'])} nodes")


if __name__ == "__main__":
    main()
