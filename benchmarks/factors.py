"""What each factor of the engine gains: one more of them at every step, on the same images.

    python benchmarks/factors.py --out benchmarks/results/factors

From the model as it was trained, 30 Anderson steps per draw in float32, to few steps of the fast
cell in bfloat16, early exits, and the serialized certificate beside all. (A processor that has no
instructions for products of bfloat16 stays with float32: `--precision`.) All steps certify an image
in turns before the next image starts. Standard certificates are timed at `--n` draws and scaled to
10,000, in proportion to the draws; serialized ones are timed at 10,000 (`--srs-n`), since their
audit does not grow in proportion. Every step is another reference classifier than the one before
where its `reference` or `precision` differs, so radii stand beside the times. Writes OUT.json,
OUT.md and (with matplotlib) OUT.svg.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import statistics
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from console import markdown, track
from contest import Work, certifier, certify, load, use_threads
from ledger import Ledger

import deqcert as dc
from deqcert.models import EquilibriumModel
from deqcert.models.bfloat16_products import has_bfloat16_products

DRAWS = 10_000


@dataclass(frozen=True, kw_only=True)
class Step:
    """One way to certify.

    Attributes:
        name: What is new in it.
        form: ``trained``: the cell as it was trained; ``folded``: weight norm and BatchNorm folded
            into the convolutions; ``fast``: what a `Certifier` runs.
        reference: Solver of the reference classifier; ``own``: the model's; ``exits``: that of
            `EXITS`.
        precision: Its precision; ``quick``: the one asked for.
        method: ``standard`` or ``srs``.
    """

    name: str
    form: str = "fast"
    reference: str = "anderson:30"
    precision: str = "float32"
    method: str = "standard"


STEPS = (
    Step(name="as trained, 30 Anderson steps", form="trained"),
    Step(name="folded", form="folded"),
    Step(name="fast kernels"),
    Step(name="bfloat16", precision="quick"),
    Step(name="early stop", precision="quick", reference="anderson:30:1e-2"),
    Step(name="serialized, 30-step reference", precision="quick", method="srs"),
    Step(name="few steps", precision="quick", reference="own"),
    Step(name="few steps, serialized", precision="quick", reference="own", method="srs"),
    Step(name="few steps, early exits", precision="quick", reference="exits"),
)

EXITS = {
    "mdeq-digits-s050": "picard:3,exits=1@3.1+2@0.088",
    "mdeq-small-s050": "picard:7,exits=2@0.69+4@0.15",
}
"""References with early exits, found on training images (`benchmarks/results/tune`)."""


def steps(model: str, precision: str) -> list[Step]:
    """Return the steps that there are for a model, the later ones in some precision."""
    kept = [s for s in STEPS if s.reference != "exits" or model in EXITS]
    if precision == "float32":
        kept = [s for s in kept if s.name != "bfloat16"]  # nothing would be new in it
    return [replace(s, precision=precision) if s.precision == "quick" else s for s in kept]


def prepared(step: Step, model: Any, work: Work, srs_n: int, name: str = "") -> dc.Certifier:
    """Return the certifier of one step, for the model of this name."""
    reference = {"own": str(model.solver), "exits": EXITS.get(name)}.get(step.reference)
    ours = certifier(
        model,
        work,
        reference=reference or step.reference,
        batch_size=None,
        dtype=step.precision,
        method=step.method,
        n=srs_n if step.method == "srs" else work.n,
    )
    if step.form == "trained":
        ours.classifier.model = copy.deepcopy(model).eval().requires_grad_(False)
    elif step.form == "folded":
        without_fast_kernels(ours.classifier.model)
    return ours


def without_fast_kernels(model: EquilibriumModel) -> None:
    """Put the plain modules of an inference copy back in their places."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            plain = getattr(child, "plain", None)
            if isinstance(plain, torch.nn.Module):
                setattr(parent, name, plain)
    model.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]


def row(step: Step, ours: dc.Certifier, found: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what one step takes for an image of 10,000 draws, the median over images."""
    settings = ours.settings
    timed = settings.n0 + settings.n
    scale = (settings.n0 + DRAWS) / timed
    return {
        "reference": settings.reference,
        "precision": step.precision,
        "method": step.method,
        "n": settings.n,
        "seconds": scale * statistics.median(f["seconds"] for f in found),
        "timed_draws": timed,
        "cell_evaluations_per_draw": statistics.fmean(f["cell_evaluations"] for f in found) / timed,
        "mean_radius": statistics.fmean(f["radius"] for f in found),
        "images": len(found),
    }


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Return the steps as a Markdown table."""
    first = next(iter(rows.values()))["seconds"]
    head = ["step", "reference", "precision", "n", "cell ev. per draw", "s per image", "gain"]
    head.append("mean radius")
    body = [
        [
            name,
            r["reference"],
            r["precision"],
            f"{r['n']:,}",
            f"{r['cell_evaluations_per_draw']:.1f}",
            f"{r['seconds']:.2f}",
            f"{first / r['seconds']:.1f}x",
            f"{r['mean_radius']:.3f}",
        ]
        for name, r in rows.items()
    ]
    return markdown(head, body)


def plot(rows: dict[str, dict[str, Any]], path: Path) -> None:
    """Draw seconds per image, step by step."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
    names = list(rows)[::-1]
    bars = axes.barh(names, [rows[name]["seconds"] for name in names])
    axes.bar_label(bars, fmt="%.2g s", padding=3)
    axes.set_xscale("log")
    axes.margins(x=0.15)
    axes.set_xlabel(f"seconds per image, {DRAWS:,} draws")
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="files to write, without suffix")
    parser.add_argument("--model", default="mdeq-digits-s050")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--sigma", type=float, default=0.5)
    parser.add_argument("--images", type=int, default=3)
    parser.add_argument("--skip", type=int, default=40, help="every so many-th test image")
    parser.add_argument("--n", type=int, default=1000, help="draws of standard certificates")
    parser.add_argument("--srs-n", type=int, default=DRAWS, help="draws of serialized ones")
    parser.add_argument(
        "--precision",
        choices=("bfloat16", "float32"),
        default="bfloat16" if has_bfloat16_products() else "float32",
        help="of the later steps; default: what this processor multiplies faster",
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--again", action="store_true", help="measure what is there once more")
    options = parser.parse_args()
    use_threads(options.threads)
    settings = {k: v for k, v in vars(options).items() if k not in ("out", "again")}
    ledger = Ledger(options.out.with_suffix(".json"), settings, again=options.again)
    model = load(options.model)
    data = dc.load_data(options.data, split="test")
    work = Work(sigma=options.sigma, n=options.n)
    chosen = steps(options.model, options.precision)
    ours = {s.name: prepared(s, model, work, options.srs_n, options.model) for s in chosen}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in ours}
    for place in track(range(options.images), f"factors of {options.model}"):
        example = data[place * options.skip]
        for name, one in ours.items():
            if place == 0 and f"{name}, image 0" not in ledger.results:
                one.predict(example.image, n=100, seed=1)  # warms up
            found[name].append(
                ledger.measure(
                    f"{name}, image {place}",
                    lambda c=one, e=example: certify(c, e.image, e.index, work.seed),
                )
            )
    rows = {s.name: row(s, ours[s.name], found[s.name]) for s in chosen}
    ledger.note("summary", rows)
    options.out.with_suffix(".md").write_text(table(rows), encoding="utf-8")
    print(table(rows), end="")
    if importlib.util.find_spec("matplotlib"):
        plot(rows, options.out.with_suffix(".svg"))


if __name__ == "__main__":
    main()
