"""Another implementation's standard smoothing against ours, end to end, image by image.

    python benchmarks/end_to_end.py --beside "COMMAND" --out benchmarks/results/end_to_end

Both sides certify the same images at the same sigma, n0, n and alpha, from the same weights. The
slow side is standard smoothing with 30 Anderson steps in float32 as the other implementation does
it; ours may take another reference classifier (`--reference`, `--precision`: few steps).

Time. On a few images (`--timed`) both sides take turns: the other implementation with `--timed-n`
draws, scaled to n in proportion to the draws, ours in full. This comes first and needs a machine
with nothing else to do; what follows does not.

Radii. The slow side's labels come from our engine as anderson:30 in float32, which takes less time
than the other implementation and gives its labels (docs/parity.md; `--labels` noisy images are
labelled by both and the differences counted). They may be of fewer draws, `--slow-n`; radii are
then compared at that n on both sides. Both sides meet the same noise, so what is left of the
sampling error in a difference of radii is that of the draws on which the two disagree: its 95 %
half-width is added to the 0.02 sigma that a radius may be off.

Resumable image by image: a second call goes on where the first was stopped (`--minutes` stops it
between two images).
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from beside import Beside
from console import console, track
from contest import Work, agreement, certifier, certify, load, sampler, use_threads
from ledger import Ledger
from paired import Pair, paired_summary, report

import deqcert as dc
from deqcert.smoothing import Labels
from deqcert.smoothing.spent import Spent


def timed(ours: dc.Certifier, other: Beside, example: dc.Example, work: Work) -> dict[str, Any]:
    """Certify one image by the other in `work.n` draws, and by ours in full."""
    theirs = other.certify(example.image, method="standard", tolerance=0.0, **asdict(work))
    return {
        "draws": work.draws,
        "timed_n": work.n,
        "seconds_per_draw": theirs["seconds"] / work.draws,
        "other": theirs,
        "ours": certify(ours, example.image, example.index, work.seed),
    }


def labels(ours: dc.Certifier, example: dc.Example, work: Work) -> tuple[int, Labels]:
    """Return the selected class and the labels of the first draws of this image."""
    draws = sampler(ours, example.image, example.index, work.seed)
    counts0 = draws.cold_counts("selection", work.n0, Spent())
    return int(counts0.argmax()), draws.cold("estimation", range(work.n), Spent())


def pair(slow: dc.Certifier, fast: dc.Certifier, example: dc.Example, work: Work) -> Pair:
    """Certify one image on both sides from the same noise."""
    slow_class, slow_labels = labels(slow, example, work)
    fast_class, fast_labels = labels(fast, example, work)
    a = slow_labels.clear(slow.classifier.margin) == slow_class
    b = fast_labels.clear(fast.classifier.margin) == fast_class
    return Pair(
        label=example.label,
        slow_class=slow_class,
        fast_class=fast_class,
        n=work.n,
        slow_count=int(a.sum()),
        fast_count=int(b.sum()),
        only_slow=int((a & ~b).sum()),
        only_fast=int((b & ~a).sum()),
        disagreements=int((slow_labels.label != fast_labels.label).sum()),
    )


def one_image(
    options: argparse.Namespace, slow: dc.Certifier, fast: dc.Certifier, example: dc.Example
) -> dict[str, Any]:
    """Return ours in full, and the pair at the slow side's n."""
    full = certify(fast, example.image, example.index, options.seed)
    work = _work(options, n=options.slow_n)
    started = time.perf_counter()
    found = pair(slow, fast, example, work)
    spent = time.perf_counter() - started
    return {
        "index": example.index,
        "ours": full,
        "pair": asdict(found),
        "seconds_of_pair": spent,
    }


def _work(options: argparse.Namespace, *, n: int) -> Work:
    return Work(
        sigma=options.sigma,
        n0=options.n0,
        n=n,
        alpha=options.alpha,
        steps=options.steps,
        seed=options.seed,
    )


def measure(options: argparse.Namespace, ledger: Ledger) -> bool:
    """Measure what is not there yet; False where time ran out."""
    started = time.monotonic()
    model = load(options.model)
    data = dc.load_data(options.data, split="test")
    examples = [data[k * options.skip] for k in range(options.images)]
    full = _work(options, n=options.n)
    slow = certifier(model, full)
    reference = options.reference or str(model.solver)
    # As many rows at once as it takes by itself: with exits more than `Work.batch`.
    fast = certifier(model, full, reference=reference, dtype=options.precision, batch_size=None)
    for who, one in (("slow", slow), ("ours", fast)):
        ledger.note(who, one.configuration | {"margin": one.classifier.margin})
    part = replace(full, n=options.timed_n)
    if options.beside and any(f"time {k}" not in ledger.results for k in range(options.timed)):
        with Beside(options.beside) as other:
            ledger.note("beside", other.facts)
            other.load(model, threads=options.threads)
            noisy = sampler(slow, examples[0].image, 0, 1)
            x = noisy.noisy("estimation", range(options.labels))
            how = {"steps": full.steps, "tolerance": 0.0, "batch": full.batch}
            ledger.measure("labels", lambda: agreement(slow, x, other.labels(x, **how)["labels"]))
            for k in track(range(options.timed), "timing both sides"):
                ledger.measure(f"time {k}", lambda e=examples[k]: timed(fast, other, e, part))
    for example in track(examples, "images"):
        key = f"image {example.index}"
        late = time.monotonic() - started > 60 * options.minutes
        if late and key not in ledger.results:
            return False
        ledger.measure(key, lambda e=example: one_image(options, slow, fast, e))
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--beside", help="command of the other implementation, for its time")
    parser.add_argument("--out", type=Path, required=True, help="files to write, without suffix")
    parser.add_argument("--model", default="mdeq-small-s050", help="name or checkpoint file")
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--sigma", type=float, default=0.5)
    parser.add_argument("--reference", help="ours; default: the model's own solver")
    parser.add_argument("--precision", default="bfloat16", help="of ours")
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--skip", type=int, default=200, help="every so many-th test image")
    parser.add_argument("--n", type=int, default=10_000, help="draws of ours, timed in full")
    parser.add_argument(
        "--slow-n", type=int, default=10_000, help="draws that radii are compared at"
    )
    parser.add_argument("--steps", type=int, default=30, help="Anderson steps of the slow side")
    parser.add_argument("--n0", type=int, default=100)
    parser.add_argument("--alpha", type=float, default=0.001)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timed", type=int, default=3, help="images the other is timed on")
    parser.add_argument("--timed-n", type=int, default=400, help="draws it is timed on, each image")
    parser.add_argument("--labels", type=int, default=400, help="noisy images labelled by both")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so many")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--again", action="store_true", help="measure what is there once more")
    options = parser.parse_args()
    use_threads(options.threads)
    free = ("beside", "out", "again", "minutes", "images")
    settings = {k: v for k, v in vars(options).items() if k not in free}
    ledger = Ledger(options.out.with_suffix(".json"), settings, again=options.again)
    if not measure(options, ledger):
        console.print("out of time: the same command goes on from here")
    found = paired_summary(ledger.results, sigma=options.sigma, alpha=options.alpha, n=options.n)
    ledger.note("summary", found)
    options.out.with_suffix(".md").write_text(report(found), encoding="utf-8")
    print(report(found), end="")


if __name__ == "__main__":
    main()
