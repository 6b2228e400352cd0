"""What a study is: rows to certify on one data set, read from a TOML file and one of its presets.

A file in ``configs`` holds what the rows share (``[defaults]``), the sizes of the presets
(``[small]``, ``[full]``), the rows (``[[rows]]``), and what else is made of their records
(``[[claims]]``, ``pairs``). Later ones win: defaults, preset, row, the row's own preset
(``rows.small``). Shared settings that a row's method does not know are left out of that row.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deqcert.certificate import NORMS
from deqcert.cli_options import read_toml
from deqcert.deterministic import IntervalCertifier, LipschitzCertifier
from deqcert.errors import ConfigurationError, unknown_name
from deqcert.smoothing import Certifier
from deqcert.smoothing.methods import METHODS
from deqcert.solvers import SolverSpec

CONFIGS = Path(__file__).parent / "configs"
PRESETS = ("small", "full")
RULES = ("released-code",)
CERTIFIERS: dict[str, Any] = {
    **dict.fromkeys(METHODS, Certifier),
    "lipschitz": LipschitzCertifier,
    "interval": IntervalCertifier,
}
"""What certifies by each method."""

_SOLVERS = ("reference", "serial", "warmup", "solver")
_NOT_OPTIONS = {"self", "model", "method", "device", "batch_size"}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One run of a study.

    Attributes:
        name: Name of its run folder, and for ``--rows``.
        title: What the table calls it.
        model: Zoo name, name in the folder of weights, or path of a checkpoint.
        method: A smoothing method, ``lipschitz`` or ``interval``.
        options: Settings of the certifier, by the names of its arguments.
        skip: Every skip-th image, >= 1.
        limit: Images at most; None for all of them.
        untrained: Certify the architecture with fresh weights: that it runs, nothing more.
        clean: Whether the accuracy without noise on the whole split is measured, too.
        shared: Name of a run folder beside those of the studies: rows of several studies with the
            same settings are certified once.
        published: The published row that this one repeats.
        note: What a reader must know about it.
    """

    name: str
    title: str
    model: str
    method: str
    options: Mapping[str, Any]
    skip: int = 1
    limit: int | None = None
    untrained: bool = False
    clean: bool = False
    shared: str | None = None
    published: str | None = None
    note: str = ""

    @property
    def norm(self) -> str:
        """``L2`` or ``Linf``: radii of different norms never stand in one table."""
        return NORMS.get(self.method, "L2")


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A row that is computed from another one's records by a rule without a guarantee.

    Attributes:
        name: Its name.
        title: What the table calls it.
        rule: ``released-code``.
        of: Name of the row with the records, one of method ``srs-paper``.
        published: The published row that this one repeats.
    """

    name: str
    title: str
    rule: str
    of: str
    published: str | None = None


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two rows whose radii are compared image by image.

    Attributes:
        standard: Name of the row with independent solves.
        serialized: Name of the row with serialized solves.
    """

    standard: str
    serialized: str


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study at one preset.

    Attributes:
        name: Name of its file.
        title: Heading of its tables.
        about: What it looks at, in a paragraph.
        preset: ``small`` or ``full``.
        data: Name of the data set; its test split is certified.
        radii: L2 radii of the table, pixel units.
        radii_linf: Linf radii of the table, pixel units.
        seed: Seed of the noise.
        published: Names of the published tables it repeats.
        rows: What is certified.
        claims: What is computed from that.
        pairs: What is compared.
        train: Commands that make weights which do not ship, by model name.
    """

    name: str
    title: str
    about: str
    preset: str
    data: str
    rows: tuple[Row, ...]
    radii: tuple[float, ...] = (0.0,)
    radii_linf: tuple[float, ...] = (0.0,)
    seed: int = 0
    published: tuple[str, ...] = ()
    claims: tuple[Claim, ...] = ()
    pairs: tuple[Pair, ...] = ()
    train: Mapping[str, str] = field(default_factory=dict)


def available() -> list[str]:
    """Return the names of all studies."""
    return sorted(path.stem for path in CONFIGS.glob("*.toml"))


def read_study(name: str, preset: str) -> Study:
    """Return a study at a preset.

    Args:
        name: Name of a file in ``configs``, or the path of another one.
        preset: ``small`` or ``full``.

    Raises:
        ConfigurationError: Not TOML, or a value that does not fit.
        UnknownNameError: A name of a study, preset, method or setting that does not exist.
    """
    if preset not in PRESETS:
        raise unknown_name("preset", preset, PRESETS)
    path = Path(name) if name.endswith(".toml") else CONFIGS / f"{name}.toml"
    if not path.is_file():
        raise unknown_name("study", name, available())
    content = read_toml(path)
    shared = {**content.pop("defaults", {}), **content.pop(preset, {})}
    _check_shared(shared)
    for other in PRESETS:
        content.pop(other, None)
    rows = tuple(_row(table, shared, preset) for table in content.pop("rows", []))
    parts = {
        "claims": tuple(_made(Claim, table) for table in content.pop("claims", [])),
        "pairs": tuple(Pair(standard=a, serialized=b) for a, b in content.pop("pairs", [])),
    }
    for key in ("radii", "radii_linf", "published"):
        if key in content:
            content[key] = tuple(content[key])
    study = _made(Study, {**content, **parts, "rows": rows, "name": path.stem, "preset": preset})
    _check_names(study)
    return study


def options_of(method: str) -> set[str]:
    """Return the settings that `method` knows."""
    return set(inspect.signature(CERTIFIERS[method].__init__).parameters) - _NOT_OPTIONS


def _row(table: Mapping[str, Any], shared: Mapping[str, Any], preset: str) -> Row:
    own = {key: value for key, value in table.items() if key not in PRESETS}
    own |= table.get(preset, {})
    method = own.get("method", shared.get("method", "srs"))
    if method not in CERTIFIERS:
        raise unknown_name("method", method, CERTIFIERS)
    known, fields = options_of(method), set(Row.__dataclass_fields__) - {"options"}
    for key in own:
        if key not in known | fields:
            raise unknown_name(f"setting of method {method}", key, known | fields)
    settings = {**{k: v for k, v in shared.items() if k in known | fields}, **own}
    options = {key: settings.pop(key) for key in list(settings) if key in known}
    for key in _SOLVERS:
        if key in options:
            options[key] = str(SolverSpec.parse(options[key]))
    return _made(Row, {**settings, "method": method, "options": options})


def _made(kind: Any, values: Mapping[str, Any]) -> Any:
    """Return a `kind` with these values, or the one-line error of what is missing or too much."""
    fields = kind.__dataclass_fields__
    for key in values:
        if key not in fields:
            raise unknown_name(f"{kind.__name__.lower()} setting", key, fields)
    try:
        return kind(**values)
    except TypeError as error:
        raise ConfigurationError(f"{values.get('name', kind.__name__)}: {error}") from error


def _check_shared(shared: Mapping[str, Any]) -> None:
    """Refuse a shared setting that no method knows: a row would leave it out in silence."""
    known = set(Row.__dataclass_fields__) | set().union(*map(options_of, CERTIFIERS))
    for key in shared:
        if key not in known:
            raise unknown_name("shared setting", key, known)


def _check_names(study: Study) -> None:
    methods = {row.name: row.method for row in study.rows}
    names = [*(row.name for row in study.rows), *(claim.name for claim in study.claims)]
    if len(set(names)) < len(names):
        raise ConfigurationError(f"{study.name} has two rows of one name: {', '.join(names)}")
    for claim in study.claims:
        if claim.rule not in RULES:
            raise unknown_name("rule", claim.rule, RULES)
        if methods.get(claim.of) != "srs-paper":
            raise ConfigurationError(
                f"{claim.name} needs a row of method srs-paper, but {claim.of!r} is none"
            )
    for pair in study.pairs:
        for name in (pair.standard, pair.serialized):
            if name not in names:
                raise unknown_name("row", name, names)
