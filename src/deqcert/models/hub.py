"""Models on the Hugging Face hub, or in folders of its form: safetensors and JSON, never pickle."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deqcert.errors import CheckpointError, DeqcertError

if TYPE_CHECKING:
    from typing_extensions import Self

    from deqcert.models.equilibrium import EquilibriumModel

INSTALL_HINT = 'the hub needs huggingface_hub: pip install "deqcert[hub]"'
# Models know the hub, checkpoints know the models: they are imported on use.

# What the hub takes as OWNER/NAME.
_ID = re.compile(r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?/[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?")


_README = """---
{{ card_data }}
---

A deep equilibrium model of `deqcert` (certified robustness by serialized randomized smoothing):
`deqcert.load_model("OWNER/NAME")`, or `deqcert certify --model OWNER/NAME`. Two files: weights as
safetensors, configuration as JSON; nothing is run.

| | |
|---|---|
| weights digest | `{{ digest }}` |
{% for key, value in told.items() %}| {{ key }} | {{ value }} |
{% endfor %}
"""


class MissingHubError(DeqcertError):
    """huggingface_hub is not installed; the message says how to get it."""


class HubModel:
    """The hub's three verbs, for models that a configuration describes in full."""

    def save_pretrained(
        self, folder: str | PathLike[str], *, card: Mapping[str, Any] | None = None
    ) -> Path:
        """Write ``model.safetensors``, ``config.json`` and the hub's model card ``README.md``.

        Args:
            folder: Where to; made if it is missing. A README that is there is kept.
            card: Facts about the weights; None keeps the model's own.

        Raises:
            MissingHubError: huggingface_hub is not installed; `save_model` needs none.
            CheckpointError: The folder cannot be written.
        """
        adapter = _adapter()(self, card)
        try:
            adapter.save_pretrained(Path(folder), model_card_kwargs=adapter.facts)
        except OSError as error:
            raise CheckpointError(
                f"cannot write the model folder {folder}: {error.strerror or error}"
            ) from error
        return Path(folder)

    @classmethod
    def from_pretrained(cls, name: str | PathLike[str], *, revision: str | None = None) -> Self:
        """Return the model of a folder, or of the hub, in eval mode.

        Args:
            name: A folder, or a hub id ``OWNER/NAME``; a folder of that name comes first.
            revision: Branch, tag or commit on the hub; give a commit to pin what is run.

        Raises:
            CheckpointError: Missing, damaged, foreign, another kind of model, or out of reach.
            MissingHubError: A hub id, and huggingface_hub is not installed.
        """
        from deqcert.models.checkpoints import read_model

        if isinstance(name, str) and is_hub_id(name):
            model = load_from_hub(name, revision=revision)
        else:
            model = read_model(Path(name))
        if not isinstance(model, cls):
            raise CheckpointError(f"{name} holds a {type(model).__name__}, not a {cls.__name__}")
        return model

    def push_to_hub(self, name: str, *, private: bool = False, message: str | None = None) -> str:
        """Upload the model to the hub, and return the address of the commit.

        Args:
            name: Hub id ``OWNER/NAME``; made if it is missing.
            private: Whether a repository that is made is private.
            message: Commit message.

        Raises:
            CheckpointError: The hub refused, or is out of reach.
            MissingHubError: huggingface_hub is not installed.
        """
        adapter = _adapter()(self, None)
        try:
            found = adapter.push_to_hub(
                name,
                private=private,
                commit_message=message or "Push model with deqcert",
                model_card_kwargs=adapter.facts,
            )
        except Exception as error:  # whatever the network and the hub have to say
            raise CheckpointError(f"cannot push {name} to the hub: {_line(error)}") from error
        return str(found)


def is_hub_id(text: str) -> bool:
    """Whether `text` is a model's name on the hub, ``OWNER/NAME``, and no path of this machine.

    A path is what is there, and what would lie in a folder that is there.

    >>> is_hub_id("someone/mdeq-digits"), is_hub_id("./models/mine"), is_hub_id("mdeq-digits")
    (True, False, False)
    """
    named = _ID.fullmatch(text) is not None and not text.endswith(".safetensors")
    return named and not Path(text).parent.is_dir()


def load_from_hub(
    name: str, *, revision: str | None = None, pretrained: bool = True
) -> EquilibriumModel:
    """Return a model of the hub, in eval mode; only its weights and configuration are fetched.

    Args:
        name: Hub id ``OWNER/NAME``.
        revision: Branch, tag or commit.
        pretrained: False keeps the configuration and leaves the weights fresh.

    Raises:
        CheckpointError: Not there, out of reach, damaged or foreign.
        MissingHubError: huggingface_hub is not installed.
    """
    from deqcert.models.checkpoints import CONFIG_NAME, WEIGHTS_NAME, read_model

    hub = _hub()
    try:
        files = [
            hub.hf_hub_download(name, file, revision=revision)
            for file in (WEIGHTS_NAME, CONFIG_NAME)
        ]
    except Exception as error:  # whatever the network and the hub have to say
        raise CheckpointError(
            f"there is no folder {name}, and as a hub id it cannot be fetched: {_line(error)}"
        ) from error
    return read_model(Path(files[0]).parent, pretrained=pretrained)


def _hub() -> Any:
    """Return huggingface_hub, or say how to get it."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise MissingHubError(INSTALL_HINT) from error
    return huggingface_hub


@functools.cache
def _adapter() -> type[Any]:
    """Return the hub's own mix-in around a model; made on use, since the hub is optional."""
    from deqcert.models.checkpoints import save_model, weights_digest

    hub = _hub()

    settings: dict[str, Any] = {
        "library_name": "deqcert",
        "model_card_template": _README,
        "tags": ["deep-equilibrium-model", "certified-robustness", "randomized-smoothing"],
    }

    class Adapter(hub.ModelHubMixin, **settings):
        """What the hub's mix-in asks of a model."""

        def __init__(self, model: Any, card: Any) -> None:
            self._subject, self._card = model, card
            # What the model card shows.
            told = dict((model.card or {}) if card is None else card)
            plain = {key: told[key] for key in told if isinstance(told[key], (str, int, float))}
            self.facts = {"digest": weights_digest(model), "told": plain}

        def _save_pretrained(self, save_directory: Path) -> None:
            save_model(self._subject, save_directory, card=self._card)

    return Adapter


def _line(error: BaseException) -> str:
    """Return what an error says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__
