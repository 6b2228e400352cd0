"""Options of the command line: what they are called, what they mean, how their text is read."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from deqcert import __version__
from deqcert.errors import ConfigurationError


def read_toml(path: Path) -> dict[str, Any]:
    """Return the content of a TOML file.

    Raises:
        ConfigurationError: It cannot be read, or is not TOML.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:  # pragma: no cover
        import tomli as tomllib  # pyright: ignore[reportMissingImports]
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        raise ConfigurationError(f"{path} is not TOML: {error}") from error


def read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Take defaults of options from a TOML file; options on the command line win."""
    if path is None:
        return None
    try:
        values = read_toml(path)
    except ConfigurationError as error:
        raise typer.BadParameter(str(error)) from error
    names = {o.removeprefix("--"): p.name for p in context.command.params for o in p.opts}
    defaults = {}
    for key, value in values.items():
        name = names.get(key.replace("_", "-"))
        if name is None:
            raise typer.BadParameter(f"{path} sets {key!r}, which is not an option of this command")
        defaults[name] = str(value) if isinstance(value, (int, float, str)) else value
    context.default_map = {**(context.default_map or {}), **defaults}
    return path


def parse_audit(text: str) -> int | float | str:
    """Return an audit given on the command line: auto, a count, a share, or a percentage."""
    if text == "auto":
        return text
    try:
        if text.endswith("%"):
            return float(text[:-1]) / 100.0
        return int(text) if text.lstrip("+-").isdigit() else float(text)
    except ValueError:
        raise ConfigurationError(
            f"audit must be auto, a count, or a share such as 0.1 or 10%, but got {text!r}"
        ) from None


def parse_radii(text: str | None) -> list[float] | None:
    """Return radii given on the command line, separated by commas; 1/255 is a number, too."""
    if text is None:
        return None
    try:
        return [_number(part) for part in text.split(",")]
    except (ValueError, ZeroDivisionError):
        raise ConfigurationError(
            f"radii must be numbers separated by commas, but got {text!r}"
        ) from None


def _number(text: str) -> float:
    """Return a number, or a fraction of two."""
    above, slash, below = text.partition("/")
    return float(above) / float(below) if slash else float(above)


def parse_distances(text: str) -> tuple[float, ...]:
    """Return distances given on the command line, separated by commas."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ConfigurationError(
            f"distances must be numbers separated by commas, but got {text!r}"
        ) from None


def parse_published(text: str | None) -> dict[str, Any]:
    """Return what is known of a published log: sigma, n and alpha, each as NAME=NUMBER."""
    kinds: dict[str, Any] = {"sigma": float, "n": int, "alpha": float}
    known = {}
    for part in text.split(",") if text else []:
        name, _, value = (piece.strip() for piece in part.partition("="))
        try:
            known[name] = kinds[name](value)
        except (KeyError, ValueError):
            raise ConfigurationError(
                "published must be such as sigma=0.5,n=100000,alpha=0.001 (any of them), "
                f"but got {text!r}"
            ) from None
    return known


def parse_indices(text: str | None) -> list[int]:
    """Return image indices given on the command line, separated by commas."""
    if text is None:
        return []
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise ConfigurationError(
            f"indices must be whole numbers >= 0 separated by commas, but got {text!r}"
        )
    return [int(part) for part in parts]


def print_version(wanted: bool) -> None:
    """Print name and version, and leave, if that is `wanted`."""
    if wanted:
        typer.echo(f"deqcert {__version__}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option(
        "--version", is_eager=True, callback=print_version, help="Print the version and leave."
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        is_eager=True,
        callback=read_config,
        help="TOML file with options of this command.",
    ),
]
DataName = Annotated[str, typer.Option("--data", help="Data set; see [b]deqcert data[/b].")]
DataFolder = Annotated[
    Path | None, typer.Option("--data-dir", help="Folder with the data set's original files.")
]
ModelName = Annotated[
    str,
    typer.Option(
        "--model",
        help="Zoo name, checkpoint file or folder, or hub id; see [b]deqcert models[/b].",
    ),
]
Sigma = Annotated[
    float, typer.Option("--sigma", help="Noise standard deviation, pixel units (pixels in [0, 1]).")
]
OptionalSigma = Annotated[
    float | None,
    typer.Option(
        "--sigma",
        help="Noise standard deviation, pixel units (pixels in [0, 1]). Needed by the methods that "
        "draw.",
    ),
]
Alpha = Annotated[float, typer.Option(help="Failure probability of one certificate, in (0, 1).")]
Method = Annotated[
    str,
    typer.Option(
        help="standard, srs, proved (monotone DEQs), or srs-paper (as published; no guarantee)."
    ),
]
CertifyMethod = Annotated[
    str,
    typer.Option(
        help="By noise (L2): standard, srs, proved (monotone DEQs), or srs-paper (as published; no "
        "guarantee). Without noise, for monotone DEQs: lipschitz (L2), or interval (Linf, where "
        "I - abs(W) >= m I)."
    ),
]
Reference = Annotated[
    str | None,
    typer.Option(
        help="Cold solver of the certified classifier, name:steps or name:steps:tolerance, or with "
        "early exits such as picard:8,exits=2@.7 (after 2 steps where the lead is above 0.7; more "
        "by +; `deqcert tune` finds some). Default: the model's own, else anderson:30."
    ),
]
Serial = Annotated[
    str | None,
    typer.Option(
        help="Warm solver. Default: anderson:3; picard:1 for references of up to 5 steps, and "
        "from a linear start."
    ),
]
Warmup = Annotated[
    str | None,
    typer.Option(
        help="Solver of the first serialized batch. Default: anderson:10, or a shorter reference."
    ),
]
Start = Annotated[
    str,
    typer.Option(
        help="Start of warm solves: previous (fixed point of the draw before), clean (that of the "
        "image without noise), or linear (predicted from the injection; solved on only where the "
        "lead is not clear; fewest cell evaluations)."
    ),
]
AuditSize = Annotated[
    str,
    typer.Option(
        help="Draws to audit: auto (planned per image), a count, or a share such as 0.1 or 10%."
    ),
]
Chains = Annotated[int, typer.Option(help="Serialized rows side by side; part of the method.")]
BatchSize = Annotated[
    int | None,
    typer.Option(
        help="Rows computed at once; hardware only, changes no label. Default: as memory allows."
    ),
]
Device = Annotated[str | None, typer.Option(help="Torch device, such as cpu or cuda. Default cpu.")]
Precision = Annotated[
    str,
    typer.Option(
        "--dtype",
        help="float32, float64 or bfloat16: half of float32's time on CPUs with AVX-512, no less "
        "than it on others.",
    ),
]
NoiseStream = Annotated[
    str | None,
    typer.Option(
        help="Numbers the noise is made of: host (NumPy's), device (PyTorch's, made where the "
        "model runs), or a name as in run.json. Part of the run, on whatever device. Default: "
        "device with --device cuda, else host."
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(help="Seed of the noise, >= 0. Default: the run's own, or the system's."),
]
