"""The command ``certify``: parsing and wiring, as in `deqcert.cli`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from deqcert.cli_options import (
    Alpha,
    AuditSize,
    BatchSize,
    CertifyMethod,
    Chains,
    ConfigFile,
    DataFolder,
    DataName,
    Device,
    ModelName,
    NoiseStream,
    OptionalSigma,
    Precision,
    Reference,
    Seed,
    Serial,
    Start,
    Warmup,
    parse_audit,
)
from deqcert.errors import ConfigurationError, unknown_name

if TYPE_CHECKING:
    from deqcert.models import EquilibriumModel
    from deqcert.runners.base import AnyCertifier

out = Console()
err = Console(stderr=True)

RunnerName = Annotated[
    str,
    typer.Option(
        help="How the work is spread: local (this machine), or ray (a cluster; needs "
        r"deqcert\[ray])."
    ),
]
WorkerCount = Annotated[
    int | None,
    typer.Option(
        "--workers",
        help="Workers, each with a copy of the model. Default: 1, in this process; with ray as "
        "many as fit, also when the cluster grows.",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(help="Threads of each worker. Default: the cores shared equally; with ray 1."),
]
Gpus = Annotated[
    float | None,
    typer.Option(
        help="GPUs of each worker: 1, or a fraction of one that several share. Default: 1 with "
        "--device cuda, else 0."
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        help="Address of a Ray cluster, such as auto. Default: one is started here for the run."
    ),
]
TimeLimit = Annotated[
    float | None,
    typer.Option(
        help="Seconds of work on one image at most; then it is recorded as an abstention, with its "
        "reason. Default: no limit."
    ),
]
Block = Annotated[
    int | None,
    typer.Option(
        help="Cut images into blocks of so many draws (chains stay whole), for several workers at "
        "one image; changes no record. Default: images stay whole."
    ),
]

SMOOTHING = (
    "sigma", "n0", "n", "alpha", "reference", "serial", "warmup", "start", "audit", "chains",
    "device", "dtype", "noise_stream", "seed",
)  # fmt: skip
"""Options of methods that draw noise, by their names in Python."""
DETERMINISTIC = {
    "lipschitz": ("solver",),
    "interval": ("largest", "resolution", "steps", "within_pixels"),
}
"""Options of the methods that draw none."""
UNUSED = {
    "standard": {
        **dict.fromkeys(("serial", "warmup", "start"), "the methods that solve serially"),
        "audit": "the methods that audit",
    },
    "proved": {"audit": "the methods that audit"},
}
"""Options that a method that draws noise has no use for, and whose they are."""


def certify(
    context: typer.Context,
    data: DataName,
    model: ModelName,
    out_dir: Annotated[Path, typer.Option("--out", help="Run folder; resumed if it exists.")],
    sigma: OptionalSigma = None,
    split: Annotated[str, typer.Option(help="train or test.")] = "test",
    skip: Annotated[int, typer.Option(help="Certify every skip-th image.")] = 1,
    limit: Annotated[
        int | None, typer.Option("--max", help="Certify at most so many images in all.")
    ] = None,
    n: Annotated[int, typer.Option(help="Estimation draws per image.")] = 10_000,
    n0: Annotated[int, typer.Option(help="Selection (and pilot) draws per image.")] = 100,
    alpha: Alpha = 0.001,
    method: CertifyMethod = "srs",
    reference: Reference = None,
    serial: Serial = None,
    warmup: Warmup = None,
    start: Start = "previous",
    audit: AuditSize = "auto",
    chains: Chains = 400,
    solver: Annotated[
        str, typer.Option(help="lipschitz: how states are found; a worse solve shrinks radii.")
    ] = "picard:500:1e-7",
    largest: Annotated[
        float, typer.Option(help="interval: radii are looked for up to this one, pixel units.")
    ] = 0.5,
    resolution: Annotated[
        float, typer.Option(help="interval: to how much a radius is found, pixel units.")
    ] = 1e-4,
    steps: Annotated[
        int, typer.Option(help="interval: steps of the bounds' solve; fewer shrink radii.")
    ] = 50,
    within_pixels: Annotated[
        bool,
        typer.Option(help="interval: against images with pixels in [0, 1] alone, or against all."),
    ] = True,
    batch_size: BatchSize = None,
    runner: RunnerName = "local",
    workers: WorkerCount = None,
    threads: Threads = None,
    gpus: Gpus = None,
    address: Address = None,
    time_limit: TimeLimit = None,
    block: Block = None,
    device: Device = None,
    dtype: Precision = "float32",
    noise_stream: NoiseStream = None,
    seed: Seed = None,
    data_dir: DataFolder = None,
    config: ConfigFile = None,
) -> None:
    """Certify images of a data set into a run folder, resumable at any time."""
    del config
    from deqcert.data import load_data
    from deqcert.models import load_model
    from deqcert.runners import Workers, certify_dataset
    from deqcert.runners.console import console_watch
    from deqcert.smoothing.methods import GUARANTEES

    refuse_idle_options(context, method)
    settings = {
        "sigma": sigma,
        "n0": n0,
        "n": n,
        "alpha": alpha,
        "reference": reference,
        "serial": serial,
        "warmup": warmup,
        "start": start,
        "audit": parse_audit(audit),
        "chains": chains,
        "device": device,
        "dtype": dtype,
        "noise_stream": noise_stream,
        "solver": solver,
        "largest": largest,
        "resolution": resolution,
        "steps": steps,
        "within_pixels": within_pixels,
    }
    hands = Workers(
        count=workers,
        threads=threads,
        gpus=gpus,
        address=address,
        time_limit=time_limit,
        block=block,
    )
    certifier = make_certifier(load_model(model), method, settings, batch_size)
    images = load_data(data, split=split, folder=data_dir)
    title = f"{method} (NO GUARANTEE)" if GUARANTEES.get(method) == "none" else method
    with console_watch(title, err) as watch:
        run = certify_dataset(
            certifier,
            images,
            out=out_dir,
            skip=skip,
            limit=limit,
            seed=seed,
            runner=runner,
            workers=hands,
            watch=watch,
        )
    records = f"{len(run.done)} record{'s' * (len(run.done) != 1)}"
    out.print(f"{records} in {run.path}", highlight=False, soft_wrap=True)


def refuse_idle_options(context: typer.Context, method: str) -> None:
    """Refuse options that were given, on the command line or in a file, and would do nothing.

    Raises:
        UnknownNameError: No such method.
        ConfigurationError: An option of another method, or no sigma where noise is drawn.
    """
    from deqcert.smoothing.methods import METHODS

    if method not in (known := (*METHODS, *DETERMINISTIC)):
        raise unknown_name("method", method, known)
    for name, whose in _idle(method).items():
        if _given(context, name):
            option = name.replace("_", "-")
            raise ConfigurationError(f"--{option} is for {whose}, not for method {method}")
    if method not in DETERMINISTIC and not _given(context, "sigma"):
        raise ConfigurationError(f"method {method} needs --sigma, the noise it certifies under")


def _idle(method: str) -> dict[str, str]:
    """Return the options that do nothing for `method`, each with whose it is."""
    others = {
        **dict.fromkeys(SMOOTHING, "the methods that draw noise"),
        **{name: f"method {own}" for own, names in DETERMINISTIC.items() for name in names},
    }
    own = DETERMINISTIC.get(method, SMOOTHING)
    idle = {name: whose for name, whose in others.items() if name not in own}
    return {**idle, **UNUSED.get(method, {})}


def make_certifier(
    model: EquilibriumModel, method: str, settings: Mapping[str, Any], batch_size: int | None
) -> AnyCertifier:
    """Return the certifier of a method, from all options by their names."""
    from deqcert.deterministic import IntervalCertifier, LipschitzCertifier
    from deqcert.smoothing import Certifier

    if method not in DETERMINISTIC:
        own = {name: settings[name] for name in SMOOTHING if name != "seed"}
        return Certifier(model, method=method, batch_size=batch_size, **own)
    own = {name: settings[name] for name in DETERMINISTIC[method]}
    if batch_size is not None:
        own["batch_size"] = batch_size
    return (LipschitzCertifier if method == "lipschitz" else IntervalCertifier)(model, **own)


def _given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"
