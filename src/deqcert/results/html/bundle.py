"""What a page carries with it: scripts, styles and data, inlined, and the policy that keeps it so.

The libraries' texts are packed (gzip, base64) and unpacked by the browser: a page of a few images
weighs two megabytes instead of five. The content security policy names every script by its hash and
allows no connection at all: neither a mistake here nor a stranger's class name can load or run
anything else.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
from functools import cache
from importlib import resources

LIBRARIES = ("jquery.slim.min.js", "dataTables.min.js")
SCRIPTS = ("unpack.js", "figures.js", "table.js", "view.js", "main.js")


def asset(name: str) -> str:
    """Return a text file of the page."""
    return (resources.files("deqcert.results.html") / "assets" / name).read_text(encoding="utf-8")


def script() -> str:
    """Return the page's own script, in one piece."""
    return '"use strict";\n' + "\n".join(asset(name) for name in SCRIPTS)


@cache
def libraries() -> str:
    """Return the texts of plotly and DataTables in one script.

    Raises:
        ImportError: plotly is not installed.
    """
    from plotly.offline import get_plotlyjs

    tables = "\n;".join(asset(f"vendor/{name}") for name in LIBRARIES)
    return f"{tables}\n;{get_plotlyjs()}"


def pack(text: str) -> str:
    """Return `text` as gzip in base64; the same text gives the same bytes."""
    return base64.b64encode(gzip.compress(text.encode(), compresslevel=6, mtime=0)).decode("ascii")


@cache
def packed_libraries() -> str:
    """Return `libraries`, packed."""
    return pack(libraries())


def policy(*scripts: str) -> str:
    """Return the content security policy that lets these scripts run and nothing be fetched."""
    hashes = " ".join(f"'sha256-{_digest(text)}'" for text in scripts)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
        "img-src data: blob:; font-src data:; base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
