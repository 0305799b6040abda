"""Hooks of mkdocs.yml: pages that live elsewhere in the repository, and the commands' own help."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from metalora.cli import Parser, make_parser

ROOT = Path(__file__).parents[1]
ELSEWHERE = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "tools/miniature/README.md", "workflows/README.md"]
MOVED = {"docs/": "", "../tools/": "tools/", "../workflows/": "workflows/", "../web/docs/": "nodes/"}
PICTURES = ["tools/miniature/people.jpg", "tools/miniature/samples.jpg"]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The site's files, with those that `docs/` does not hold."""
    for name in ELSEWHERE:
        files.append(File.generated(config, name, content=(ROOT / name).read_text(encoding="utf-8")))
    for name in PICTURES:
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    for page in sorted((ROOT / "web" / "docs").glob("*.md")):
        files.append(File.generated(config, f"nodes/{page.stem}.md", abs_src_path=str(page)))
    files.append(File.generated(config, "commands.md", content=commands()))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links as the repository has them, from its top or from `docs/`, lead to the same pages of the site."""
    for above, below in MOVED.items():
        markdown = markdown.replace(f"]({above}", f"]({below}").replace(f'src="{above}', f'src="{below}')
    return markdown


def commands() -> str:
    """Each command with what its --help says, as wide as a page has room for."""
    parts = ["# Commands", "What `metalora COMMAND --help-all` says."]
    with patch("metalora.cli.WIDEST", 79):
        for name, parser in subcommands(make_parser()):
            parts += [f"## {name}", f"```text\n{parser.format_all().rstrip()}\n```"]
    return "\n\n".join(parts)


def subcommands(parser: argparse.ArgumentParser, before: str = "metalora") -> Iterator[tuple[str, Parser]]:
    """("metalora benchmark plan", its parser), ...: the commands that have none of their own."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                yield from subcommands(below, f"{before} {name}")
            return
    assert isinstance(parser, Parser)
    yield before, parser
