"""The commands ``verify``, ``attack`` and ``tune``: parsing and wiring, as in `deqcert.cli`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from deqcert.cli_options import (
    BatchSize,
    DataFolder,
    DataName,
    Device,
    ModelName,
    Precision,
    Sigma,
    parse_distances,
    parse_indices,
)

out = Console()
err = Console(stderr=True)

RunFolder = Annotated[Path, typer.Argument(help="Run folder.")]
RunModel = Annotated[
    str | None,
    typer.Option(
        help="Zoo name, checkpoint file or folder, or hub id. Default: the shipped one with the "
        "run's weights digest."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


def verify(
    run: RunFolder,
    model: RunModel = None,
    replays: Annotated[
        int, typer.Option("--replay", help="Make so many random records again, to the bit.")
    ] = 0,
    index: Annotated[
        str | None, typer.Option(help="Images whose records to make again, such as 0,40.")
    ] = None,
    draws: Annotated[
        int | None,
        typer.Option(help="Test so many draws per record instead of replaying it whole."),
    ] = None,
    as_json: AsJson = False,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the random choices. Default: the system's.")
    ] = None,
    batch_size: BatchSize = None,
    device: Annotated[
        str | None, typer.Option(help="Torch device of the replay. Default: that of the run.")
    ] = None,
    data_dir: DataFolder = None,
) -> None:
    """Check a run folder: recompute every bound, and make records again, from their noise keys.

    Exit code 0 where all is well, 1 where problems were found, 2 for bad input.
    """
    import json

    from deqcert.checks import verify as run_verification
    from deqcert.checks.console import console_steps

    with console_steps("replay", err) as watch:
        found = run_verification(
            run,
            model=model,
            data_dir=data_dir,
            replays=replays,
            indices=parse_indices(index),
            draws=draws,
            seed=seed,
            device=device,
            batch_size=batch_size,
            watch=watch,
        )
    if as_json:
        out.print_json(json.dumps(found.to_json()))
    else:
        out.print(found)
    if not found.clean:
        raise typer.Exit(1)


def attack(
    run: RunFolder,
    model: RunModel = None,
    distances: Annotated[
        str, typer.Option(help="Lengths of the shifts, in units of the certified radius.")
    ] = "0.5,1,1.5,2,3",
    steps: Annotated[int, typer.Option(help="Gradient steps.")] = 20,
    samples: Annotated[
        int,
        typer.Option(help="Noisy copies per gradient of smooth-PGD; not for deterministic runs."),
    ] = 32,
    n: Annotated[
        int,
        typer.Option(
            help="Draws of each judgement by the smoothed class; deterministic runs need none."
        ),
    ] = 1000,
    alpha: Annotated[
        float, typer.Option(help="Probability that one judgement is wrong, in (0, 1).")
    ] = 0.001,
    limit: Annotated[
        int | None, typer.Option("--max", help="Attack at most so many certified images.")
    ] = None,
    out_dir: Annotated[
        Path | None,
        typer.Option("--out", help="Folder of the results; resumed. Default: RUN/attack."),
    ] = None,
    as_json: AsJson = False,
    seed: Annotated[
        int | None, typer.Option(help="Seed of all noise. Default: the folder's, or the system's.")
    ] = None,
    batch_size: BatchSize = None,
    device: Device = None,
    data_dir: DataFolder = None,
) -> None:
    """Attack certified images inside and outside their radius: an empirical check, no proof.

    Exit code 0 where none fell inside its radius, 1 where one did, 2 for bad input.
    """
    import json

    from deqcert.checks import AttackSpec, attack_run
    from deqcert.checks.console import console_steps
    from deqcert.results.plots import MissingMatplotlibError

    spec = AttackSpec(
        distances=parse_distances(distances), steps=steps, samples=samples, n=n, alpha=alpha
    )
    with console_steps("attack", err) as watch:
        found = attack_run(
            run,
            model=model,
            data_dir=data_dir,
            spec=spec,
            limit=limit,
            out=out_dir,
            seed=seed,
            device=device,
            batch_size=batch_size,
            watch=watch,
        )
    if as_json:
        out.print_json(json.dumps(found.to_json()))
    else:
        out.print(found)
    try:
        found.write_plot()
    except MissingMatplotlibError as error:
        err.print(f"no plot: {error}", markup=False, highlight=False)
    if found.fallen_inside:
        raise typer.Exit(1)


def tune(
    data: DataName,
    model: ModelName,
    sigma: Sigma,
    split: Annotated[
        str, typer.Option(help="train or test; train where test images are certified.")
    ] = "train",
    against: Annotated[
        str, typer.Option(help="Long solver whose labels are wanted, name:steps[:tolerance].")
    ] = "anderson:30",
    most: Annotated[int, typer.Option(help="Picard steps at most.")] = 12,
    limit: Annotated[
        int, typer.Option("--max", help="Images at most, evenly spread over the split.")
    ] = 1000,
    copies: Annotated[int, typer.Option(help="Noisy copies of each image.")] = 4,
    as_json: AsJson = False,
    out_file: Annotated[
        Path | None, typer.Option("--out", help="JSON file to write besides; must be new.")
    ] = None,
    device: Device = None,
    dtype: Precision = "float32",
    seed: Annotated[int, typer.Option(help="Seed of the noise.")] = 0,
    data_dir: DataFolder = None,
) -> None:
    """Find a cheap --reference for certify: few Picard steps, and exits where a label is clear.

    It is to give the labels of a long solve; the table shows how often it does not, what it costs
    and how often it is right. A certificate is about the reference it names, whichever that is.
    """
    import json

    from deqcert.checks import tune as run_tuning
    from deqcert.checks.console import console_steps
    from deqcert.data import load_data
    from deqcert.errors import ConfigurationError
    from deqcert.models import load_model
    from deqcert.results.files import make_folder, write_atomically

    if out_file is not None and out_file.exists():
        raise ConfigurationError(f"{out_file} exists, and nothing is overwritten")
    if out_file is not None:
        make_folder(out_file.parent)  # what would fail later fails now
    subject, images = load_model(model), load_data(data, split=split, folder=data_dir)
    with console_steps("images", err) as watch:
        found = run_tuning(
            subject,
            images,
            sigma=sigma,
            against=against,
            most=most,
            images=limit,
            copies=copies,
            dtype=dtype,
            device=device,
            seed=seed,
            watch=watch,
        )
    content = json.dumps(
        {"data": data, "split": split, "model": model, **found.to_json()}, indent=1
    )
    if as_json:
        out.print_json(content)
    else:
        out.print(found)
    if out_file is not None:  # last: a disk that refuses takes nothing of what was found
        write_atomically(out_file, content + "\n")
