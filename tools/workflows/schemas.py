"""What the nodes of the workflows are, as tests/record_nodes.py recorded it from real ComfyUIs: a file for each."""

import json
from pathlib import Path

from .graph import Schemas

FOLDER = Path(__file__).parents[2] / "tests" / "data" / "comfyui_nodes"
FOREIGN: Schemas = json.loads((FOLDER / "foreign.json").read_text(encoding="utf-8"))  # of other packs
RECORDS: dict[str, Schemas] = {
    path.stem: json.loads(path.read_text(encoding="utf-8")) for path in FOLDER.glob("[0-9]*.json")
}
OLDEST, NEWEST = "0.3.64", "0.30.0"


def schemas_for(version: str) -> Schemas:
    """Of a ComfyUI that has the other packs, too."""
    return {**FOREIGN, **RECORDS[version]}
