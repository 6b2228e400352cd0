"""`attack_run`: try to make certified images fall, inside their radius and outside it.

An empirical check and no proof: attacks that fail say nothing about attacks that were not tried. A
fall inside a radius does refute a certificate (up to the judge's alpha); falls a little outside say
how tight it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deqcert.checks.attack_certain import CertainAttacker
from deqcert.checks.attack_folder import AttackFolder
from deqcert.checks.attack_result import Attack
from deqcert.checks.judge import FELL, HELD, Judge
from deqcert.checks.models import find_model, model_differences
from deqcert.checks.pgd import Ascent, Logits, along, ascend, differentiable
from deqcert.checks.problems import Place
from deqcert.checks.replay import certifier_of
from deqcert.checks.schema import check_certain_schema, check_schema
from deqcert.checks.settings import check_configuration, is_deterministic
from deqcert.data import Dataset, load_data
from deqcert.errors import ConfigurationError, RunFolderError
from deqcert.models import EquilibriumModel
from deqcert.results import RunFolder
from deqcert.results.run_folder import RECORDS, RUN
from deqcert.smoothing import Certifier, fresh_seed
from deqcert.smoothing.majority import require_decisive
from deqcert.smoothing.noise import check_seed, keyed_generator
from deqcert.smoothing.settings import check_count, check_number
from deqcert.solvers import SolverSpec

Watch = Callable[[int, int, str], None]

SMOOTH_PGD, PGD, RANDOM = "smooth-pgd", "pgd", "random"
ATTACKS = (SMOOTH_PGD, PGD, RANDOM)
BASE = "base"
DISTANCES = (0.5, 1.0, 1.5, 2.0, 3.0)
# A random direction is followed until it is long enough; clipping may make it ever slower.
_FARTHEST = 1e6


@dataclass(frozen=True, kw_only=True)
class AttackSpec:
    """What is attacked how.

    Attributes:
        distances: Lengths of the shifts in units of the certified radius, > 0; up to 1 is inside
            (at 1, a millionth of the radius short of it: the certified ball is open).
        steps: Gradient steps, >= 1.
        samples: Noisy copies per gradient of smooth-PGD, >= 1.
        n: Draws of each judgement, >= 1.
        alpha: Probability that one judgement names a wrong class, in (0, 1).

    Raises:
        ConfigurationError: A value out of range, or n too small for alpha to ever decide.
    """

    distances: tuple[float, ...] = DISTANCES
    steps: int = 20
    samples: int = 32
    n: int = 1000
    alpha: float = 0.001

    def __post_init__(self) -> None:
        Ascent(steps=self.steps, samples=self.samples)
        alpha = check_number("alpha", self.alpha)
        if not 0 < alpha < 1:
            raise ConfigurationError(f"alpha must lie in (0, 1), but got {alpha}")
        require_decisive(check_count("n", self.n), alpha)
        if not self.distances or not all(0 < d < float("inf") for d in self.distances):
            raise ConfigurationError(
                f"distances must be numbers > 0, in units of the radius, but got {self.distances}"
            )
        object.__setattr__(self, "distances", tuple(sorted({float(d) for d in self.distances})))


def attack_run(
    run: str | PathLike[str],
    *,
    model: EquilibriumModel | str | Path | None = None,
    data: Dataset | None = None,
    data_dir: str | PathLike[str] | None = None,
    spec: AttackSpec | None = None,
    limit: int | None = None,
    out: str | PathLike[str] | None = None,
    seed: int | None = None,
    device: str | None = None,
    batch_size: int | None = None,
    watch: Watch | None = None,
) -> Attack:
    """Attack the certified images of a run; resumable, one line per image.

    Three shifts of every length are tried: smooth-PGD (through the mean of the softmax over noisy
    copies), PGD against the classifier without noise, and a random direction for comparison. The
    smoothed classifier judges each by PREDICT with `spec.n` draws; besides, the classifier without
    noise is asked about the images of PGD. Deterministic certificates are attacked by PGD and a
    random direction in their own norm, and the class at the exact equilibrium is proved: `spec.n`,
    `alpha` and `samples` mean nothing there.

    Args:
        run: The run folder.
        model: The model, its zoo name or path; None looks among the shipped ones by digest.
        data: The data set; None loads it by its name in ``run.json``.
        data_dir: Folder with the data set's original files.
        spec: What is attacked how.
        limit: Attack at most so many certified images, the first ones; a later call may raise it.
        out: Folder of the results; None means ``attack`` in the run folder. Resumed if it holds an
            attack with the same settings.
        seed: Seed of all noise; None takes the folder's, or for a new one the system's.
        device: Torch device; None means the CPU.
        batch_size: Rows computed at once by the judge; hardware only.
        watch: Callback for progress.

    Raises:
        RunFolderError: No run folder or a damaged one, or in `out` an attack with other settings,
            of another process, or a damaged one.
        ConfigurationError: No model, other weights or other data than the run's, or a value out of
            range.
    """
    folder = RunFolder.open(run)
    spec = spec or AttackSpec()
    if limit is not None and limit < 1:
        raise ConfigurationError(f"the number of images must be >= 1, but got {limit}")
    seed = None if seed is None else check_seed(seed)  # before it is on record
    _require_settings(folder)
    subject = _model(folder, model)
    images = _data(folder, data, data_dir)
    make, settings = _attacker(folder, subject, spec, device, batch_size)
    targets = _targets(folder, images)[:limit]
    place = Path(out) if out is not None else folder.path / "attack"
    header = {"run": folder.configuration, "attack": settings}
    with AttackFolder.create_or_resume(place, header, seed, fresh_seed) as results:
        attacker = make(check_seed(results.seed))
        missing = [record for record in targets if record["index"] not in results.done]
        for done, record in enumerate(missing, start=len(targets) - len(missing)):
            if watch is not None:
                watch(done, len(targets), f"image {record['index']}")
            results.append(attacker.attack(images[record["index"]].image, record))
        wanted = {record["index"] for record in targets}
        lines = [line for line in results.lines if line["index"] in wanted]
    return Attack(
        path=str(place),
        guarantee=_guarantee(targets),
        gradient=attacker.gradient,
        spec=settings,
        norm=folder.configuration.get("norm", "L2"),
        seed=results.seed,
        images=tuple(lines),
    )


def _require_settings(folder: RunFolder) -> None:
    """Refuse a ``run.json`` that is not that of a run."""
    for problem in check_configuration(folder.configuration):
        raise RunFolderError(
            f"{folder.path} has a {RUN} that is not that of a run: its {problem.field} is "
            f"{problem.recorded!r}, expected {problem.recomputed}"
        )


def _targets(folder: RunFolder, data: Dataset) -> list[dict[str, Any]]:
    """Return the records to attack: those that certify a radius.

    Raises:
        RunFolderError: A record is not that of a certificate for one of the images.
    """
    schema = check_certain_schema if is_deterministic(folder.configuration) else check_schema
    targets = [record for record in folder.records() if record["radius"] > 0]
    for record in targets:
        index, prediction = record["index"], record["prediction"]
        for problem in schema(Place(RECORDS, index=index), record):
            raise RunFolderError(
                f"{folder.path}: the record of image {index} is no certificate's: its "
                f"{problem.field} is {problem.recorded!r}, expected {problem.recomputed}"
            )
        if index >= len(data) or prediction >= data.num_classes:
            raise RunFolderError(
                f"{folder.path} has a record of image {index}, class {prediction}, which "
                f"{data!r} has not"
            )
    return targets


def _attacker(
    folder: RunFolder,
    model: EquilibriumModel,
    spec: AttackSpec,
    device: str | None,
    batch_size: int | None,
) -> tuple[Callable[[int], _Attacker | CertainAttacker], dict[str, Any]]:
    """Return what makes the run's attacker from a seed, and the settings that it has."""
    if is_deterministic(folder.configuration):
        if device not in (None, "cpu"):
            raise ConfigurationError(
                f"attacks on deterministic runs are judged in float64 on the CPU, not on {device!r}"
            )
        settings = {"distances": spec.distances, "steps": spec.steps}
        norm = folder.configuration["norm"]
        return lambda seed: CertainAttacker(model, norm=norm, seed=seed, **settings), settings
    configuration = {**folder.configuration, "method": "standard", "n": spec.n, "alpha": spec.alpha}
    certifier = certifier_of(configuration, model, device=device, batch_size=batch_size)
    return lambda seed: _Attacker(certifier, model, spec, seed), asdict(spec)


class _Attacker:
    """Attacks one image after the other."""

    def __init__(
        self, certifier: Certifier, model: EquilibriumModel, spec: AttackSpec, seed: int
    ) -> None:
        self.certifier = certifier
        self.spec = spec
        self.seed = seed
        self.device = certifier.classifier.device
        solver: SolverSpec = certifier.classifier.spec
        self.logits: Logits
        self.logits, self.gradient = differentiable(model, solver, device=self.device)
        self.judge = Judge(certifier=certifier, n=spec.n, alpha=spec.alpha, seed=seed)

    def attack(self, image: Tensor, record: dict[str, Any]) -> dict[str, Any]:
        """Return the line of one image."""
        started = time.perf_counter()
        index, certified = record["index"], record["prediction"]
        lengths = torch.tensor(self.spec.distances, dtype=torch.float64) * record["radius"]
        clean = self.judge.verdict(image, index, certified)
        shifted = {
            SMOOTH_PGD: self._ascend(image, certified, lengths, self._noise(index)),
            PGD: self._ascend(
                image, certified, lengths, lambda step: torch.zeros_like(image)[None]
            ),
            RANDOM: self._random(image, index, lengths),
        }
        outcomes = [
            outcome
            for name, moved in shifted.items()
            for outcome in self._judged(name, image, moved, index, certified)
        ]
        outcomes += self._base(image, shifted[PGD], certified)
        return {
            "index": index,
            "prediction": certified,
            "radius": record["radius"],
            "share": clean.share,
            "outcomes": outcomes,
            "seconds": time.perf_counter() - started,
        }

    def _ascend(
        self,
        image: Tensor,
        certified: int,
        lengths: Tensor,
        noise: Callable[[int], Tensor],
    ) -> Tensor:  # (B, C, H, W) on the CPU
        moved = ascend(
            self.logits,
            image.to(self.device),
            torch.eye(self.certifier.classifier.num_classes, device=self.device)[certified],
            lengths.to(self.device, torch.float32),
            lambda step: noise(step).to(self.device),
            steps=self.spec.steps,
        )
        return moved.cpu()

    def _noise(self, index: int) -> Callable[[int], Tensor]:
        """Return fresh noise for every step, of a stage that the judge does not use."""
        source, m = self.certifier.noise(self.seed, index), self.spec.samples
        return lambda step: source.draws("attack", range(step * m, (step + 1) * m))

    def _random(self, image: Tensor, index: int, lengths: Tensor) -> Tensor:
        """Return one random direction, followed to each length as far as pixels allow."""
        generator = keyed_generator(self.seed, index, "attack-direction")
        direction = torch.from_numpy(generator.standard_normal(tuple(image.shape)))
        direction = (direction / direction.norm())[None].expand(len(lengths), *image.shape)
        clean = image[None].expand(len(lengths), *image.shape)
        return along(clean, direction, lengths, most=_FARTHEST)

    def _judged(
        self, name: str, image: Tensor, moved: Tensor, index: int, certified: int
    ) -> list[dict[str, Any]]:
        found = []
        for distance, shifted in zip(self.spec.distances, moved, strict=True):
            verdict = self.judge.verdict(shifted, index, certified)
            found.append(
                {
                    "attack": name,
                    "distance": distance,
                    "length": _length(shifted, image),
                    **asdict(verdict),
                }
            )
        return found

    def _base(self, image: Tensor, moved: Tensor, certified: int) -> list[dict[str, Any]]:
        """Return what the classifier without noise says about the images of PGD."""
        labels, _ = self.certifier.classifier.labelled(moved)
        return [
            {
                "attack": BASE,
                "distance": distance,
                "length": _length(shifted, image),
                "outcome": HELD if label == certified else FELL,
                "label": int(label),
                "share": float(label == certified),
            }
            for distance, shifted, label in zip(
                self.spec.distances, moved, labels.label.tolist(), strict=True
            )
        ]


def _length(moved: Tensor, image: Tensor) -> float:
    return float((moved.double() - image.double()).norm())


def _guarantee(targets: Sequence[dict[str, Any]]) -> str:
    return ", ".join(sorted({record["guarantee"] for record in targets})) or "no certified image"


def _model(folder: RunFolder, model: EquilibriumModel | str | Path | None) -> EquilibriumModel:
    digest = folder.configuration["weights_digest"]
    subject = find_model(model, digest)
    if subject is None:
        raise ConfigurationError(
            f"an attack needs the model of {folder.path} (--model): no shipped one has its weights"
        )
    for name, recorded, own in model_differences(folder.configuration, subject):
        raise ConfigurationError(
            f"{folder.path} is about another model: its {name} is {recorded!r}, that of this model "
            f"{own!r}"
        )
    return subject


def _data(folder: RunFolder, data: Dataset | None, data_dir: str | PathLike[str] | None) -> Dataset:
    configuration = folder.configuration
    if data is None:
        data = load_data(configuration["data"], split=configuration["split"], folder=data_dir)
    if data.digest != configuration["data_digest"]:
        raise RunFolderError(f"{folder.path} is about other images than {data!r}")
    return data
