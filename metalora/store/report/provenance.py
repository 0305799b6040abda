"""Names, settings and hashes: all that somebody needs to check that two runs measured the same."""

from collections.abc import Iterable
from typing import Any

from .html import Html, element, folded, joined, note, section
from .results import Results, Variant


def provenance(results: Results) -> Html:
    """The last part of a page."""
    return section("What was measured with what", run_facts(results))


def run_facts(results: Results) -> Html:
    """Names, settings and hashes of a run and of each of its variants."""
    faces = results.faces
    rows: list[tuple[str, str]] = [
        ("benchmark", results.name),
        ("manifest, sha256", results.manifest_sha256),
        ("prompts, sha256", results.prompts_sha256),
        (
            "people",
            f"{len(results.people)}, {sum(1 for p in results.people if p.held_out)} of them with held-out photos",
        ),
        ("prompts", str(len(results.prompts))),
        ("seeds", ", ".join(map(str, results.seeds))),
        ("backbone", results.backbone),
        ("backbone, fingerprint", results.fingerprint),
        ("sampling", _settings(results.sampling)),
        ("faces", f"{faces.name}; licence: {faces.licence}; {faces.detected} real photos compared"),
        ("faces, sha256", faces.sha256),
    ]
    for name, embedder in (("CLIP", results.clip), ("DINO", results.dino)):
        rows.append((name, embedder.name if embedder else "not used"))
        if embedder:
            rows.append((f"{name}, sha256", embedder.sha256))
    return joined([_facts(rows), *(_variant_facts(variant) for variant in results.variants)])


def _variant_facts(variant: Variant) -> Html:
    rows = [("settings", _settings(variant.settings))] if variant.settings else []
    rows += [(f"Meta-Down of {name}, sha256", sha) for name, sha in (variant.meta_down_sha256 or {}).items()]
    rows += [(f"LoRA of {identity}, sha256", sha) for identity, sha in variant.lora_sha256.items()]
    body = _facts(rows) if rows else note("Nothing was trained here.")
    return folded(f"{variant.label} ({variant.id})", body)


def _facts(rows: Iterable[tuple[str, str]]) -> Html:
    items = [
        part for name, value in rows for part in (element("dt", {}, name), element("dd", {"class": "mono"}, value))
    ]
    return element("dl", {"class": "facts"}, *items)


def _settings(settings: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items()) or "none"
