"""Results that survive an interruption: what is there is not measured again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from machine import machine


class Ledger:
    """A JSON file of results by key, written after every one of them.

    The file holds ``settings`` (which decide what is measured: other settings need another file),
    ``machine`` and ``results``.

    Args:
        path: JSON file, created with its folder.
        settings: Plain JSON values.
        again: Measure everything once more.
        device: What is measured, beside the processor.

    Raises:
        ValueError: The file holds results of other settings.
    """

    def __init__(
        self, path: Path, settings: dict[str, Any], *, again: bool = False, device: str = "cpu"
    ) -> None:
        self.path = path
        settings = json.loads(json.dumps(settings))
        self.content: dict[str, Any] = {
            "settings": settings,
            "machine": machine(device),
            "results": {},
        }
        if path.exists() and not again:
            found = json.loads(path.read_text(encoding="utf-8"))
            if found["settings"] != settings:
                raise ValueError(
                    f"{path} holds results of other settings, {found['settings']}; "
                    "use --again or another file"
                )
            self.content = found

    @property
    def results(self) -> dict[str, Any]:
        """All results so far, by key."""
        return self.content["results"]

    def measure(self, key: str, work: Callable[[], Any]) -> Any:
        """Return the result under `key`; where there is none, what `work` returns, kept."""
        if key not in self.results:
            self.results[key] = work()
            self.write()
        return self.results[key]

    def note(self, key: str, value: Any) -> None:
        """Keep a fact beside the results, such as a summary made from them."""
        self.content[key] = value
        self.write()

    def write(self) -> None:
        """Write the file as a whole or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_name(self.path.name + ".part")
        draft.write_text(json.dumps(self.content, indent=1) + "\n", encoding="utf-8")
        os.replace(draft, self.path)
