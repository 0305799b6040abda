"""Markup that cannot be broken by what it shows: every text is escaped on its way in."""

from collections.abc import Iterable, Mapping
from html import escape
from typing import TypeAlias


class Html(str):
    """Finished markup. Any other text that is put into an element is escaped."""

    __slots__ = ()


Attributes: TypeAlias = Mapping[str, str | int | float]
VOID = {"img", "br", "meta"}


def element(name: str, attributes: Attributes, *children: str) -> Html:
    """An element of HTML or SVG."""
    written = "".join(f' {key}="{escape(str(value))}"' for key, value in attributes.items())
    if name in VOID:
        assert not children, name
        return Html(f"<{name}{written}>")
    return Html(f"<{name}{written}>{joined(children)}</{name}>")


def joined(parts: Iterable[str]) -> Html:
    """Parts one after the other."""
    return Html("".join(part if isinstance(part, Html) else escape(part) for part in parts))


def section(title: str, *children: str) -> Html:
    """A part of the page with its heading."""
    return element("section", {}, element("h2", {}, title), *children)


def paragraph(*children: str) -> Html:
    """A paragraph."""
    return element("p", {}, *children)


def note(*children: str) -> Html:
    """A paragraph in the smaller, fainter print of notes."""
    return element("p", {"class": "note"}, *children)


def folded(title: str, *children: str, open_: bool = False) -> Html:
    """What is shown after a click on its title."""
    return element("details", {"open": ""} if open_ else {}, element("summary", {}, title), *children)


def table(title: str, columns: Iterable[str], rows: Iterable[Iterable[str]], kind: str = "") -> Html:
    """A table whose first column names the row. On a phone each row becomes a card with the columns as labels."""
    columns = list(columns)
    head = element(
        "tr", {"role": "row"}, *(element("th", {"scope": "col", "role": "columnheader"}, c) for c in columns)
    )
    body = [element("tr", {"role": "row"}, *_cells(columns, row)) for row in rows]
    return element(
        "table",
        {"role": "table", **({"class": kind} if kind else {})},
        element("caption", {}, title),
        element("thead", {"role": "rowgroup"}, head),
        element("tbody", {"role": "rowgroup"}, *body),
    )


def _cells(columns: list[str], row: Iterable[str]) -> Iterable[Html]:
    for index, (column, cell) in enumerate(zip(columns, row, strict=True)):
        if index == 0:
            yield element("th", {"scope": "row", "role": "rowheader"}, cell)
        else:
            yield element("td", {"role": "cell", "data-label": column}, element("span", {}, cell))
