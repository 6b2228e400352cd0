"""What running on workers costs: Ray and processes beside bare loops, the run folder, resuming.

    python benchmarks/runners.py --out benchmarks/results/runners.json

- ``ray``, ``processes``: images per second of two workers of one thread, over what two bare
  processes (certifier loops without a run folder) reach, in turns. Of each side the images count
  between the first that all workers have under way and the last before one runs dry: starting up,
  which takes seconds, is apart.
- ``overhead``: a whole run in this process, folder, records and thumbnails included, over the bare
  certifier, image by image in turns; the first one warms both up and is with the run.
- ``resume``: opening a run folder of 100,000 records to go on with it.

Rates are means over the turns, of which more may be added (`--repeats`). Two cores that nobody else
uses are needed.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from bare_loop import certifier
from console import markdown, track
from ledger import Ledger

import deqcert as dc
from deqcert.results import RunFolder
from deqcert.results.records import encode, make_record
from deqcert.runners import Watch, Workers

HERE = Path(__file__).parent
RECORDS = 100_000
RUNNERS = {"ray": "ray", "processes": "local"}


def rate(times: list[float], workers: int) -> float:
    """Return images per second, from when images were finished, both ends left out."""
    times = sorted(times)
    first, last = 2 * workers, len(times) - workers
    return (last - 1 - first) / (times[last - 1] - times[first])


def bare(settings: dict[str, Any], indices: list[int], workers: int) -> float:
    """Return the rate of so many bare processes, each with its share of the images."""
    processes = []
    for k in range(workers):
        own = json.dumps({**settings, "indices": indices[k::workers]})
        command = [sys.executable, str(HERE / "bare_loop.py"), own]
        processes.append(
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    times = []
    for process in processes:
        out, _ = process.communicate()
        times += map(float, out.split())
    assert len(times) == len(indices)
    return rate(times, workers)


def spread(settings: dict[str, Any], indices: list[int], workers: int, runner: str) -> float:
    """Return the rate of a run on so many workers."""
    times: list[float] = []
    watch = Watch(finished=lambda record: times.append(time.time()))
    with tempfile.TemporaryDirectory() as folder:
        dc.certify_dataset(
            certifier(settings),
            dc.load_data(settings["data"]),
            out=Path(folder) / "run",
            limit=len(indices),
            seed=0,
            runner=runner,
            workers=Workers(count=workers, threads=settings["threads"]),
            watch=watch,
        )
    return rate(times, workers)


def turn(settings: dict[str, Any], options: argparse.Namespace, part: str, number: int) -> Any:
    """Let a runner and bare processes do the same once; they take turns at being first."""
    indices = list(range(options.images))
    sides: list[tuple[str, Callable[[], float]]] = [
        ("bare", lambda: bare(settings, indices, options.workers)),
        ("runner", lambda: spread(settings, indices, options.workers, RUNNERS[part])),
    ]
    return {name: work() for name, work in (sides if number % 2 else sides[::-1])}


def turns_of(results: dict[str, Any], part: str) -> list[dict[str, float]]:
    """Return the turns of a runner that there are."""
    return [found for key, found in results.items() if key.startswith(f"{part}, turn")]


def overhead(settings: dict[str, Any], options: argparse.Namespace) -> Any:
    """Compare a run in this process with the bare certifier, image by image in turns."""
    torch.set_num_threads(settings["threads"])
    subject, data = certifier(settings), dc.load_data(settings["data"])
    run: list[float] = []
    bare: list[float] = []

    def finished(record: Mapping[str, Any]) -> None:
        nonlocal started
        run.append(time.perf_counter() - started)
        index = record["index"]
        started = time.perf_counter()
        subject.certify(data[index].image, seed=0, index=index)
        bare.append(time.perf_counter() - started)
        started = time.perf_counter()

    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        dc.certify_dataset(
            subject,
            data,
            out=Path(folder) / "run",
            limit=options.images,
            seed=0,
            watch=Watch(finished=finished),
        )
        run[-1] += time.perf_counter() - started  # what is done after the last image
    return {
        "images": len(run),
        "run_seconds": sum(run),
        "bare_seconds": sum(bare),
        "overhead": sum(run) / sum(bare) - 1,
        "run": run,
        "bare": bare,
    }


def resume(settings: dict[str, Any], options: argparse.Namespace) -> Any:
    """Time the opening of a large run folder, its records like those of a real image."""
    data, subject = dc.load_data(settings["data"]), certifier({**settings, "method": "srs"})
    certificate = subject.certify(data[0].image, seed=0)
    folder = Path(tempfile.mkdtemp()) / "run"
    try:
        configuration = {**subject.configuration, "seed": 0}
        with RunFolder.create_or_resume(folder, configuration, {}):
            pass
        with open(folder / "records.jsonl", "w", encoding="utf-8") as stream:
            for index in range(RECORDS):
                again = dataclasses.replace(certificate, index=index)
                stream.write(encode(make_record(again, data[0].label)) + "\n")
        seconds = [_opened(folder, configuration) for _ in range(5)]
        size = (folder / "records.jsonl").stat().st_size / RECORDS
    finally:
        shutil.rmtree(folder.parent)
    return {"records": RECORDS, "bytes_per_record": size, "seconds": statistics.median(seconds)}


def _opened(folder: Path, configuration: dict[str, Any]) -> float:
    started = time.perf_counter()
    with RunFolder.create_or_resume(folder, configuration, {}) as run:
        assert len(run.done) == RECORDS
    return time.perf_counter() - started


def show(results: dict[str, Any]) -> str:
    """Return the table."""
    rows = []
    for name in ("ray", "processes"):
        if turns := turns_of(results, name):
            shares = [t["runner"] / t["bare"] for t in turns]
            rates = [statistics.mean(t[side] for t in turns) for side in ("runner", "bare")]
            what = f"two workers ({name}) over two bare processes"
            spread_of = f"{len(turns)} turns, {min(shares):.2f} to {max(shares):.2f}"
            detail = f"{rates[0]:.2f} and {rates[1]:.2f} images/s, {spread_of}"
            rows.append([what, f"{rates[0] / rates[1]:.3f}", detail])
    if r := results.get("overhead"):
        detail = f"{r['run_seconds']:.2f} and {r['bare_seconds']:.2f} s, {r['images']} images"
        rows.append(["a run over a bare loop", f"{r['overhead']:+.1%}", detail])
    if r := results.get("resume"):
        detail = f"{r['records']:,} records of {r['bytes_per_record']:,.0f} bytes"
        rows.append(["resume", f"{r['seconds']:.2f} s", detail])
    return markdown(["what", "found", "of"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--model", default="mdeq-digits-s050")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--sigma", type=float, default=0.5)
    parser.add_argument("--reference", default="anderson:8")
    parser.add_argument("--n", type=int, default=2000, help="draws per image")
    parser.add_argument("--images", type=int, default=30, help="images of a side and turn")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5, help="turns in all")
    parser.add_argument("--threads", type=int, default=1, help="of each worker")
    parser.add_argument("--again", action="store_true", help="measure what is there once more")
    options = parser.parse_args()
    fixed = ("model", "data", "sigma", "reference", "n", "images", "workers", "threads")
    settings = {name: getattr(options, name) for name in fixed}
    ledger = Ledger(options.out, settings, again=options.again)
    settings |= {"method": "standard", "audit": "auto"}
    ledger.measure("overhead", lambda: overhead(settings, options))
    ledger.measure("resume", lambda: resume(settings, options))
    parts = [part for part in RUNNERS if part != "ray" or importlib.util.find_spec("ray")]
    for k in track(range(options.repeats), "turns"):
        for part in parts:
            ledger.measure(f"{part}, turn {k}", lambda p=part, k=k: turn(settings, options, p, k))
    text = show(ledger.results)
    print(text, end="")
    options.out.with_suffix(".md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
