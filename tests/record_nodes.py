"""Record from a running ComfyUI what the nodes of the workflows are, and their texts: python tests/record_nodes.py URL

The file lets workflows be checked where there is no ComfyUI; with COMFYUI_PATH it is compared with the real thing.
"""

import json
import sys
import urllib.request
from pathlib import Path

RECORD = Path(__file__).parent / "data" / "comfyui_nodes.json"
LOCALE = Path(__file__).parents[1] / "locales" / "en" / "nodeDefs.json"
CORE = """
CLIPTextEncode ConditioningCombine ConditioningSetProperties CreateHookLoraModelOnly DualCLIPLoader
EmptySD3LatentImage FluxGuidance KSampler LoadImage LoadImageSetFromFolderNode LoraLoaderModelOnly LoraModelLoader
LossGraphNode MaskComposite PreviewAny PreviewImage SaveImage SaveLoRANode SolidMask UNETLoader VAEDecode VAELoader
"""
OURS = "MetaLoRA_"
FILES = ("image", "unet_name", "clip_name1", "clip_name2", "vae_name", "lora_name", "folder", "file")


def recorded(info: dict) -> dict:
    """The parts of /object_info that workflows depend on; file lists, which differ by machine, are left empty."""
    nodes = {name: info[name] for name in sorted(info) if name in CORE.split() or name.startswith(OURS)}
    kept = {}
    for name, node in nodes.items():
        inputs = {
            part: {key: without_files(key, entry) for key, entry in node["input"].get(part, {}).items()}
            for part in ("required", "optional")
        }
        kept[name] = {"input": inputs} | {key: node[key] for key in ("output", "output_name", "output_is_list")}
    return kept


def without_files(key: str, entry: list) -> list:
    """The entry without tooltips and without the names of files of this machine."""
    kind, *rest = entry
    options = {k: v for k, v in (rest[0] if rest else {}).items() if k != "tooltip"}
    if key in FILES:
        options = {k: v for k, v in options.items() if k not in ("options", "default")}
        kind = [] if isinstance(kind, list) else kind
    return [kind, options]


def translatable(info: dict) -> dict:
    """Every English text of our nodes, as ComfyUI's page looks them up: the file that translators copy."""
    return {name: texts_of(node) for name, node in sorted(info.items()) if name.startswith(OURS)}


def texts_of(node: dict) -> dict:
    """The texts of one node."""
    entries = {**node["input"].get("required", {}), **node["input"].get("optional", {})}
    outputs = zip(node["output_name"], node["output_tooltips"], strict=True)
    return {
        "display_name": node["display_name"],
        "description": node["description"],
        "inputs": {name: {"name": name, "tooltip": entry[1]["tooltip"]} for name, entry in entries.items()},
        "outputs": {str(i): {"name": name, "tooltip": tooltip} for i, (name, tooltip) in enumerate(outputs)},
    }


def main() -> None:
    with urllib.request.urlopen(sys.argv[1] + "/object_info") as answer:
        info = json.load(answer)
    kept = recorded(info)
    missing = set(CORE.split()) - kept.keys()
    assert not missing, f"this ComfyUI has no {missing}"
    RECORD.write_text(json.dumps(kept, indent=1, sort_keys=False) + "\n")
    LOCALE.write_text(json.dumps(translatable(info), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"wrote {RECORD}: {len(kept)} nodes, and {LOCALE}")


if __name__ == "__main__":
    main()
