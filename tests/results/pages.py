"""Reads a report page as a browser would, for its tests: elements, tables, packed data."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

VOID = {"meta", "link", "input", "br", "img", "hr"}
RAW = {"script", "style"}


@dataclass
class Element:
    """An element with its attributes and content."""

    tag: str
    attributes: dict[str, str] = field(default_factory=dict)
    children: list[Element | str] = field(default_factory=list)

    def __iter__(self) -> Iterator[Element]:
        """Yield all elements below, in the order of the page."""
        for child in self.children:
            if isinstance(child, Element):
                yield child
                yield from child

    def all(self, tag: str = "", **wanted: str) -> list[Element]:
        """Return the elements of this tag whose attributes have these values."""
        names = {name.replace("_", "-").rstrip("-"): value for name, value in wanted.items()}
        return [
            found
            for found in self
            if (not tag or found.tag == tag)
            and all(
                value in found.attributes.get(name, "").split()
                if name == "class"
                else found.attributes.get(name) == value
                for name, value in names.items()
            )
        ]

    def one(self, tag: str = "", **wanted: str) -> Element:
        """Return the only such element."""
        (found,) = self.all(tag, **wanted)
        return found

    @property
    def text(self) -> str:
        """Its text, white space as a browser shows it; scripts and styles are no text."""
        return " ".join("".join(self._texts()).split())

    @property
    def raw(self) -> str:
        """Its own text, to the letter."""
        return "".join(child for child in self.children if isinstance(child, str))

    def _texts(self) -> Iterator[str]:
        if self.tag in RAW:
            return
        for child in self.children:
            if isinstance(child, str):
                yield child
            else:
                yield " "
                yield from child._texts()
                yield " "


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("page")
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        made = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(made)
        if tag not in VOID:
            self.open.append(made)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        made = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(made)

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def parse(page: str) -> Element:
    """Return the root of `page`; elements that are not closed in order are an error."""
    reader = _Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == [reader.root]
    return reader.root


def table(element: Element) -> dict[str, list[str]]:
    """Return the cells of a table by the heading of their row; ``""`` has the columns' names."""
    rows: dict[str, list[str]] = {}
    for row in element.all("tr"):
        head, *cells = [child.text for child in row.children if isinstance(child, Element)]
        rows[head] = cells
    return rows


def unpack(page: Element, name: str) -> str:
    """Return what the page carries packed under this id."""
    return gzip.decompress(base64.b64decode(page.one("script", id=name).raw)).decode()


def data(page: Element) -> dict[str, Any]:
    """Return what the page's script reads."""
    return json.loads(unpack(page, "data"))
