"""What the site needs beside its pages: they are written to be read in the repository, too.

Links that leave ``docs/`` work in a repository; on the site their pictures are copied, and other
files are named instead of linked.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
_LINK = re.compile(r"(!?)\[([^\]]*)\]\((\.\.?/[^)#\s]*)(#[^)\s]*)?\)")
_PICTURES = {".png", ".svg", ".jpg"}


def on_files(files: Files, config: Any) -> Files:
    """Add the pictures that pages show from outside the folder of documents."""
    for page in list(files.documentation_pages()):
        for match in _LINK.finditer(page.content_string):
            outside = _outside(match[3], page.src_uri)
            if outside and match[1] and Path(outside).suffix in _PICTURES:
                source = str(ROOT / outside)
                files.append(File.generated(config, f"pictures/{outside}", abs_src_path=source))
    return files


def on_page_markdown(markdown: str, page: Any, **more: Any) -> str:
    """Point pictures to their copies, and name other files of the repository."""
    del more

    def replaced(match: re.Match[str]) -> str:
        outside = _outside(match[3], page.file.src_uri)
        if not outside:
            return match[0]
        if not (ROOT / outside).exists():
            raise PluginError(f"{page.file.src_uri} links to {outside}, which does not exist")
        if match[1]:
            depth = "../" * page.file.src_uri.count("/")
            return f"![{match[2]}]({depth}pictures/{outside})"
        named = match[2].strip("`")
        return f"`{named}`" if named in outside else f"{match[2]} (`{outside}`)"

    return _LINK.sub(replaced, markdown)


def _outside(link: str, page: str) -> str:
    """Return where in the repository a link leads if it leaves ``docs/``, else ``""``."""
    target = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), link))
    return "" if target.startswith("docs/") or target == "docs" else target
