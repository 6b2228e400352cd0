"""The command line: parsing and wiring only.

Heavy imports stay inside the commands, so that ``deqcert --help`` answers at once.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from deqcert import cli_certify, cli_checks, cli_watch
from deqcert.cli_options import (
    BatchSize,
    DataFolder,
    DataName,
    Device,
    Method,
    ModelName,
    Precision,
    Reference,
    Sigma,
    Version,
    parse_published,
    parse_radii,
    read_toml,
)
from deqcert.errors import ConfigurationError, DeqcertError, NumericalWarning, TrainingPaused

if TYPE_CHECKING:
    from deqcert.models import EquilibriumModel
    from deqcert.smoothing import Certifier

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

out = Console()
err = Console(stderr=True)

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
PAUSED = 75
"""Exit code of work that stopped because its time was up: EX_TEMPFAIL, call again."""

Function = TypeVar("Function", bound=Callable[..., Any])


def one_line_errors(command: Function) -> Function:
    """Turn a `DeqcertError` into one line and exit code 2, Ctrl-C into a hint and 130."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        import warnings

        def show(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
            del rest, more
            if issubclass(category, NumericalWarning):
                err.print(f"warning: {message}", markup=False, highlight=False, soft_wrap=True)

        warnings.showwarning = show
        try:
            return command(*args, **kwargs)
        except DeqcertError as error:
            if isinstance(error, TrainingPaused):
                err.print(str(error), markup=False, highlight=False, soft_wrap=True)
                raise typer.Exit(PAUSED) from None
            err.print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
            raise typer.Exit(2) from error
        except KeyboardInterrupt:
            err.print("stopped; the same command goes on from here", highlight=False)
            raise typer.Exit(130) from None

    return wrapped  # pyright: ignore[reportReturnType]


@app.callback()
def begin(version: Version = False) -> None:
    """Certified robustness for deep equilibrium models, by serialized random smoothing."""


app.command()(one_line_errors(cli_certify.certify))


@app.command()
@one_line_errors
def predict(
    model: ModelName,
    sigma: Sigma,
    image: Annotated[
        Path | None, typer.Option(help="Image file of the model's size (PNG, JPEG ...).")
    ] = None,
    data: Annotated[str | None, typer.Option(help="Data set to take the image from.")] = None,
    index: Annotated[int, typer.Option(help="Which image of the data set.")] = 0,
    split: Annotated[str, typer.Option(help="train or test.")] = "test",
    n: Annotated[int, typer.Option(help="Draws.")] = 1000,
    alpha: Annotated[
        float, typer.Option(help="Probability of returning a wrong class, in (0, 1).")
    ] = 0.001,
    method: Method = "standard",
    reference: Reference = None,
    batch_size: BatchSize = None,
    device: Device = None,
    dtype: Precision = "float32",
    seed: Annotated[
        int | None, typer.Option(help="Seed of the noise, >= 0. Default: the system's.")
    ] = None,
    data_dir: DataFolder = None,
) -> None:
    """Predict the smoothed class of one image, or abstain."""
    from deqcert.data import load_data, read_image

    if (image is None) == (data is None):
        raise ConfigurationError("give either --image FILE or --data NAME with --index")
    certifier = _certifier(
        _load_model(model),
        sigma=sigma,
        n=n,
        alpha=alpha,
        method=method,
        reference=reference,
        batch_size=batch_size,
        device=device,
        dtype=dtype,
    )
    names: tuple[str, ...] = ()
    if image is not None:
        pixels = read_image(image, certifier.classifier.input_shape)
    else:
        images = load_data(str(data), split=split, folder=data_dir)
        if not 0 <= index < len(images):
            raise ConfigurationError(
                f"--index must lie in 0..{len(images) - 1} for {data} {split}, but got {index}"
            )
        pixels, names = images[index].image, images.class_names
    found = certifier.predict(pixels, n=n, alpha=alpha, seed=seed, index=index)
    if found is None:
        out.print(f"abstain: {n} draws do not decide at alpha {alpha:g}", highlight=False)
        return
    name = f" ({names[found]})" if names and names[found] != str(found) else ""
    out.print(f"class {found}{name}", highlight=False)


@app.command()
@one_line_errors
def train(
    data: DataName,
    model: Annotated[str, typer.Option("--model", help="Architecture; see deqcert models.")],
    sigma: Sigma,
    out_dir: Annotated[
        Path, typer.Option("--out", help="Folder of the training run; resumed if it exists.")
    ],
    recipe: Annotated[
        str | None,
        typer.Option(
            help="mdeq-digits, mdeq-mnist, mdeq-fashion, mondeq-fc, mondeq-conv, mondeq-ibp, "
            "short-solve, fine-tune (with --weights), or published. Default: the one called like "
            "the model, else short-solve."
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="Trained model of that architecture to start from, a name or a checkpoint, "
            "instead of fresh weights."
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training images.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images per step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak of the cosine.")] = None,
    objective: Annotated[
        str | None,
        typer.Option(
            help="short-solve (few steps), equilibrium (converged only), or interval (bounds, for "
            "monotone DEQs such as mondeq-ibp)."
        ),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(help="float32, or bfloat16 for the convolutions of training; weights differ."),
    ] = None,
    validation_share: Annotated[
        float | None, typer.Option(help="Share of the training images held out, in [0, 1).")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random, >= 0.")] = 0,
    minutes: Annotated[
        float | None,
        typer.Option(help="Save and stop after so long, exit code 75; the same call goes on."),
    ] = None,
    device: Device = None,
    data_dir: DataFolder = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", help="TOML file with further settings (names of TrainConfig)."),
    ] = None,
) -> None:
    """Train a model under Gaussian noise, resumable at any time, to the bit.

    A recipe sets what neither an option nor the TOML file does.
    """
    from deqcert.data import load_data
    from deqcert.training import console_progress, find_recipe, slow_products
    from deqcert.training import train as run_training

    if minutes is not None and not minutes > 0:
        raise ConfigurationError(f"--minutes must be > 0, but got {minutes:g}")
    given = {
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "objective": objective,
        "precision": precision,
        "validation_share": validation_share,
    }
    settings = {
        **(read_toml(config) if config else {}),
        **{name: value for name, value in given.items() if value is not None},
        "seed": seed,
    }
    chosen = find_recipe(recipe, model=model)
    if chosen.needs_weights and weights is None:
        name = chosen.name
        raise ConfigurationError(f"recipe {name} starts from trained weights: give --weights")
    settled = chosen.config(**{**settings, "sigma": sigma})
    if note := slow_products(settled, device):
        err.print(f"note: {note}", highlight=False, soft_wrap=True)
    images = load_data(data, split="train", folder=data_dir)
    with console_progress(model, err) as watch:
        result = run_training(
            model,
            images,
            out=out_dir,
            config=settled,
            test=load_data(data, split="test", folder=data_dir),
            command=command_line(),
            watch=watch,
            device=device,
            model_settings=chosen.model,
            weights=None if weights is None else _load_model(weights),
            pause_after=None if minutes is None else 60.0 * minutes,
        )
    out.print(f"trained model in {result.path}", highlight=False, soft_wrap=True)


def command_line() -> str:
    """Return the command as the user typed it, without the path of the program."""
    return shlex.join(["deqcert", *sys.argv[1:]])


@app.command()
@one_line_errors
def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="One or more run folders; a file is a log that others published, in the format of "
            "locuslab/smoothing."
        ),
    ],
    radii: Annotated[
        str | None,
        typer.Option(
            help="Radii of the table, pixel units, such as 0,0.25,0.5; of L2 if there are Linf "
            "runs besides."
        ),
    ] = None,
    linf_radii: Annotated[
        str | None,
        typer.Option(help="Radii of the Linf table, such as 0,1/255,2/255, if there are both."),
    ] = None,
    out_dir: Annotated[
        Path | None, typer.Option("--out", help="Folder for tables and curves; needed for several.")
    ] = None,
    published: Annotated[
        str | None,
        typer.Option(
            help="What is known of published logs, such as sigma=0.5,n=100000,alpha=0.001; their "
            "guarantee is not checked."
        ),
    ] = None,
    html: Annotated[
        bool,
        typer.Option(
            "--html",
            help="Write report.html too: one page that opens offline, with interactive curves and "
            "a table of all images.",
        ),
    ] = False,
) -> None:
    """Print and write tables and certified-accuracy curves of one or more runs.

    L2 and Linf radii never share a table or a curve.
    """
    from deqcert.results import read_cohen
    from deqcert.results import report as make_report

    known = parse_published(published)
    listed = [read_cohen(path, **known) if path.is_file() else path for path in runs]
    made = make_report(
        listed,
        radii=parse_radii(radii),
        linf_radii=parse_radii(linf_radii),
        out=out_dir,
        html=html,
    )
    out.print(made)


app.command()(one_line_errors(cli_checks.verify))
app.command()(one_line_errors(cli_checks.attack))
app.command()(one_line_errors(cli_checks.tune))
app.command()(one_line_errors(cli_watch.watch))


@app.command()
@one_line_errors
def models() -> None:
    """List the architectures and the trained models that come with deqcert."""
    from deqcert.models import available_models

    name = Column("model", overflow="fold")  # names are to be copied
    table = Table(name, "images", "classes", "trained on", "at sigma", "accuracy", box=None)
    for entry in available_models():
        card = entry.card
        accuracy = card.get("test", {}).get("accuracy")
        table.add_row(
            entry.name,
            "x".join(map(str, entry.config.input_shape)),
            str(entry.config.num_classes),
            card["data"]["name"] if card else ("(short name)" if entry.pretrained else "-"),
            f"{card['sigma']:g}" if card else ("0.5" if entry.pretrained else ""),
            "" if accuracy is None else f"{100 * accuracy:.1f} %",
        )
    out.print(table)
    out.print(
        "accuracy: of one draw under that noise. A short name stands for the weights of sigma 0.5; "
        "what is trained on nothing is an architecture for deqcert train or import-checkpoint.",
        highlight=False,
    )


@app.command("import-checkpoint")
@one_line_errors
def import_public_checkpoint(
    file: Annotated[
        Path, typer.Argument(help="State dict or training checkpoint (.pth.tar, .pth, .pkl).")
    ],
    architecture: Annotated[
        str, typer.Option("--arch", help="Public architecture, such as mdeq-large.")
    ],
    out_dir: Annotated[Path, typer.Option("--out", help="Folder for the model.")],
    sigma: Annotated[
        float | None,
        typer.Option(help="Noise the weights were trained at, if known; for the card."),
    ] = None,
) -> None:
    """Import a checkpoint of the public MDEQ or SRS code; nothing in the file is run."""
    from deqcert.models import convert_checkpoint

    report = convert_checkpoint(file, out_dir, architecture=architecture, sigma=sigma)
    lines = [
        f"{report.architecture} from {report.source} (sha256 {report.sha256[:16]})",
        f"taken over: {report.tensors} tensors, {report.parameters:,} parameters",
        *(f"ignored: {count} {kind}" for kind, count in report.ignored.items()),
        *(f"note: {note}" for note in report.notes),
        f"weights digest: {report.weights_digest}",
        f"model in {out_dir}",
    ]
    for line in lines:
        out.print(line, markup=False, highlight=False, soft_wrap=True)


@app.command("data")
@one_line_errors
def list_data(data_dir: DataFolder = None) -> None:
    """List the data sets: what they are, whether they are here, where they are looked for."""
    from deqcert.data.listing import list_data_sets, where_it_looks

    table = Table(box=None, show_header=False)
    for listed in list_data_sets(data_dir):
        table.add_row(listed.name, "images", listed.images, style="bold")
        for key in ("here", "licence", "digest"):
            table.add_row("", key, Text(getattr(listed, key)))  # not markup: paths may hold [ ]
    out.print(where_it_looks(data_dir), markup=False, highlight=False, soft_wrap=True)
    out.print(table)


def _load_model(name: str) -> EquilibriumModel:
    from deqcert.models import load_model

    return load_model(name)


def _certifier(model: EquilibriumModel, **settings: Any) -> Certifier:
    from deqcert.smoothing import Certifier

    return Certifier(model, **settings)


def main() -> None:
    """Run the command line.

    What a terminal or a file in another encoding than UTF-8 cannot show becomes a question mark. A
    full disk behind standard output is one line, as every other error is.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        app()
    except OSError as error:
        if error.errno not in _FULL:
            raise
        with contextlib.suppress(OSError):
            print(f"error: cannot write what there is to print: {error.strerror}", file=sys.stderr)
        os._exit(2)  # an orderly end would try to write it once more


if __name__ == "__main__":
    main()
