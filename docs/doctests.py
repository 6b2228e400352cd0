"""For the API reference: doctests in docstrings are code, not quotations."""

from __future__ import annotations

from typing import Any

from griffe import Extension, Object


class Doctests(Extension):
    """Fences every block of lines that begins with ``>>>``."""

    def on_object(self, *, obj: Object, **more: Any) -> None:
        """Rewrite the docstring of what was just read."""
        del more
        if obj.docstring is not None and ">>>" in obj.docstring.value:
            obj.docstring.value = fenced(obj.docstring.value)


def fenced(text: str) -> str:
    """Return `text` with its doctests fenced; a doctest ends at an empty line."""
    lines: list[str] = []
    inside = False
    for line in [*text.splitlines(), ""]:
        begins = line.lstrip().startswith(">>>")
        if begins and not inside:
            lines += ["", line[: len(line) - len(line.lstrip())] + "```pycon"]
            inside = True
        elif inside and not line.strip():
            lines.append("```")
            inside = False
        lines.append(line.replace("  # doctest: +SKIP", ""))
    return "\n".join(lines[:-1])
