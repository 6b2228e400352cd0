"""Small pictures of the certified images, handed over by the runner through the run folder.

``thumbnails.jsonl`` has one line per image: ``{"index": 3, "webp": "..."}``, WebP in base64. It is
an ornament: a missing or damaged file or line costs its pictures and nothing else.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator
from pathlib import Path

THUMBNAILS = "thumbnails.jsonl"
LARGEST = 1 << 15
"""Bytes of base64 text at most; longer ones are no thumbnails and are left out."""


def thumbnail_line(index: int, webp: bytes) -> str:
    """Return the line of one image, without its newline."""
    text = base64.b64encode(webp).decode("ascii")
    return json.dumps({"index": index, "webp": text}, separators=(",", ":"))


def read_thumbnails(folder: Path) -> dict[int, str]:
    """Return WebP pictures in base64 by image index; what is missing or damaged is left out.

    Every text returned is base64 of bytes that begin as WebP does: it is put into a page.
    """
    return dict(each_thumbnail(folder))


def each_thumbnail(folder: Path) -> Iterator[tuple[int, str]]:
    """Yield what `read_thumbnails` returns, one after the other: a run may have a million."""
    try:
        with (folder / THUMBNAILS).open("rb") as stream:
            for line in stream:
                if (found := _read_line(line)) is not None:
                    yield found
    except OSError:
        return


def _read_line(line: bytes) -> tuple[int, str] | None:
    """Return index and picture of a whole line."""
    try:
        entry = json.loads(line)
        index, text = entry["index"], entry["webp"]
        if type(index) is not int or len(text) > LARGEST:
            return None
        content = base64.b64decode(text, validate=True)
    except (ValueError, TypeError, KeyError, binascii.Error):
        return None
    is_webp = content[:4] == b"RIFF" and content[8:12] == b"WEBP"
    return (index, text) if is_webp else None
