"""Record from a running ComfyUI what the nodes of the workflows are, and their texts: python tests/record_nodes.py URL

There is a file for each version of ComfyUI, so that workflows are checked where there is none; with COMFYUI_PATH the
file of that version is compared with the real thing. Nodes of other packs, where the server has them, go to a file of
their own, with the place and the commit of each pack.
"""

import json
import sys
import urllib.request
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "data" / "comfyui_nodes"
FOREIGN = FOLDER / "foreign.json"
ROOT = Path(__file__).parents[1]
LOCALE = ROOT / "locales" / "en" / "nodeDefs.json"
USED = {
    node["type"]
    for path in (ROOT / "workflows").glob("*.json")
    for node in json.loads(path.read_text(encoding="utf-8"))["nodes"]
}
PACKS = {  # the newest commits that could be had
    "https://github.com/cubiq/ComfyUI_InstantID": (
        "1ef34ef573581bd9727c1e0ac05aa956b356a510",
        "InstantIDModelLoader InstantIDFaceAnalysis ApplyInstantID",
    ),
}
OURS = "MetaLoRA_"
FILES = """
image unet_name clip_name clip_name1 clip_name2 vae_name lora_name ckpt_name control_net_name photomaker_model_name
instantid_file file
"""

Schemas = dict[str, dict[str, Any]]


def recorded(info: Schemas, names: list[str]) -> Schemas:
    """The parts of /object_info that workflows depend on; file lists, which differ by machine, are left empty."""
    kept = {}
    for name, node in ((name, info[name]) for name in sorted(names) if name in info):
        inputs = {
            part: {key: without_files(key, entry) for key, entry in node["input"].get(part, {}).items()}
            for part in ("required", "optional")
        }
        kept[name] = {"input": inputs} | {key: node[key] for key in ("output", "output_name", "output_is_list")}
    return kept


def recorded_core(info: Schemas) -> Schemas:
    """ComfyUI's own nodes that are used, and all of ours."""
    core = USED - {name for _, names in PACKS.values() for name in names.split()}
    return recorded(info, [name for name in info if name in core or name.startswith(OURS)])


def without_files(key: str, entry: list) -> list:
    """The entry without tooltips, without what newer pages hide, and without the names of files of this machine."""
    kind, *rest = entry
    options = {k: v for k, v in (rest[0] if rest else {}).items() if k not in ("tooltip", "advanced")}
    if key in FILES.split():
        options = {k: v for k, v in options.items() if k not in ("options", "default")}
        kind = [] if isinstance(kind, list) else kind
    return [kind, options]


def translatable(info: Schemas) -> Schemas:
    """Every English text of our nodes, as ComfyUI's page looks them up: the file that translators copy."""
    return {name: texts_of(node) for name, node in sorted(info.items()) if name.startswith(OURS)}


def texts_of(node: dict[str, Any]) -> dict[str, Any]:
    """The texts of one node."""
    entries = {**node["input"].get("required", {}), **node["input"].get("optional", {})}
    outputs = zip(node["output_name"], node["output_tooltips"], strict=True)
    return {
        "display_name": node["display_name"],
        "description": node["description"],
        "inputs": {name: {"name": name, "tooltip": entry[1]["tooltip"]} for name, entry in entries.items()},
        "outputs": {str(i): {"name": name, "tooltip": tooltip} for i, (name, tooltip) in enumerate(outputs)},
    }


def write(path: Path, content: dict[str, Any], indent: int) -> None:
    path.write_text(json.dumps(content, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"wrote {path}: {len(content)} nodes")


def answer(address: str, path: str) -> dict[str, Any]:
    with urllib.request.urlopen(address + path) as page:
        return json.load(page)


def main() -> None:
    info, system = answer(sys.argv[1], "/object_info"), answer(sys.argv[1], "/system_stats")["system"]
    kept = recorded_core(info)
    write(FOLDER / f"{system['comfyui_version']}.json", kept, 1)
    write(LOCALE, translatable(info), 2)
    foreign = {
        name: {"pack": pack, "commit": commit} | node
        for pack, (commit, names) in PACKS.items()
        for name, node in recorded(info, names.split()).items()
    }
    if len(foreign) == sum(len(names.split()) for _, names in PACKS.values()):
        write(FOREIGN, foreign, 1)


if __name__ == "__main__":
    main()
