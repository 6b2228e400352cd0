"""`Certifier`: one model, one noise level, one method; certificates and predictions of images."""

from __future__ import annotations

import time
import warnings
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deqcert.certificate import Certificate, Reference
from deqcert.errors import ConfigurationError, NumericalWarning, unknown_name
from deqcert.models import EquilibriumModel
from deqcert.smoothing.chains import Serialization
from deqcert.smoothing.classifier import (
    Labels,
    ReferenceClassifier,
    check_image,
    precision_name,
)
from deqcert.smoothing.hardware import HardwareBatch
from deqcert.smoothing.methods import METHODS, Outcome, Procedure
from deqcert.smoothing.noise import NOISE_STREAM, NoiseSource, check_seed, fresh_seed
from deqcert.smoothing.proved import EXACT, require_proofs
from deqcert.smoothing.sampling import Progress, Sampler, no_progress
from deqcert.smoothing.spent import Spent
from deqcert.smoothing.starts import STARTS
from deqcert.solvers import SolverSpec
from deqcert.stats import certified_radius, check_feasible, majority_p_value


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that decides a certificate besides model, image and seed.

    These are the names of the `Certifier` arguments, of the command line's options and of the run
    folder's configuration; values are plain JSON types.
    """

    sigma: float
    n0: int
    n: int
    alpha: float
    method: str
    reference: str
    serial: str
    warmup: str
    start: str
    chains: int
    audit: int | float | str
    dtype: str

    def __post_init__(self) -> None:
        if not (np.isfinite(self.sigma) and self.sigma > 0):
            raise ConfigurationError(f"sigma must be finite and > 0, but got {self.sigma}")
        if not 0 < self.alpha < 1:
            raise ConfigurationError(f"alpha must lie in (0, 1), but got {self.alpha}")
        for name in ("n0", "n", "chains"):
            check_count(name, getattr(self, name))
        if self.method not in METHODS:
            raise unknown_name("method", self.method, METHODS)
        if self.start not in STARTS:
            raise unknown_name("start", self.start, STARTS)
        if self.method in ("standard", "proved"):
            check_feasible(n=self.n, alpha=self.alpha, audit=None)
        else:
            check_feasible(n=self.n, alpha=self.alpha, audit=self.audit)


def check_count(name: str, value: object) -> int:
    """Return `value` if it is an integer >= 1.

    Raises:
        ConfigurationError: It is not.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ConfigurationError(f"{name} must be an integer >= 1, but got {value!r}")
    return int(value)


def default_serial(reference: SolverSpec, start: str) -> str:
    """Return the warm solver for a reference: three Anderson steps as published, or one step.

    Three steps save nothing where the reference takes about as many, and from a linear prediction
    one step at a time goes as far as a draw needs.
    """
    return "picard:1" if start == "linear" or reference.max_steps <= 5 else "anderson:3"


def default_warmup(reference: SolverSpec) -> str:
    """Return the solver of the first serialized batch: as published, never above the reference."""
    return str(reference) if reference.max_steps < 10 else "anderson:10"


class Certifier:
    """Certifies and predicts with the smoothed version of a model.

    The certificate is about one base classifier: the model's weights with the `reference` solver,
    started from the model's own start, at the given precision (THEORY 1). Its smoothed class at an
    image x is the most probable label of x + N(0, sigma^2 I).

    Args:
        model: An equilibrium model; the certifier works on its own inference copy.
        sigma: Noise standard deviation, pixel units (pixels in [0, 1]), > 0.
        n0: Selection draws, >= 1; also the pilot of ``srs``.
        n: Estimation draws, >= 1.
        alpha: Failure probability of one certificate, in (0, 1).
        method: ``"standard"``, ``"srs"``, ``"proved"`` (models that prove labels: monotone DEQs) or
            ``"srs-paper"`` (no guarantee).
        reference: Solver of the base classifier; default: the model's own, else anderson:30.
        serial: Solver of serialized draws; default anderson:3, or picard:1 where the reference
            takes at most 5 steps or the start is linear. Of ``proved`` only the number of steps
            counts, the most a draw may take to its proof; default: that of the reference.
        warmup: Solver of the first serialized batch; default anderson:10, or the reference where
            that is shorter.
        start: Start of serialized solves: the ``"previous"`` draw's fixed point; that of the
            ``"clean"`` image; or ``"linear"``, a prediction from the injection fitted to 64 draws
            of this image, where draws without a clear lead are solved on by `serial`, up to three
            times.
        chains: Serialized rows followed side by side, >= 1; part of the method.
        audit: Audited draws: a count, a share in (0, 1) of the draws labelled with the class, or
            ``"auto"``: planned per image from the pilot.
        batch_size: Rows computed at once; hardware only, never changes a label. Default 400,
            less where the solver's history would pass 2 GiB; smaller by itself, with a warning,
            where memory runs out.
        device: Torch device; default the CPU.
        dtype: ``"float32"`` (default), ``"float64"`` or ``"bfloat16"``; part of the classifier.

    Raises:
        ConfigurationError: A setting is out of range, or `n` is too small for `alpha` (the message
            names the n needed).
        UnknownNameError: An unknown solver, method or start.

    Warns:
        NumericalWarning: The model was trained at another noise level; later, memory ran out and
            fewer rows are computed at once.

    Example:
        >>> import deqcert as dc
        >>> certifier = dc.Certifier(dc.load_model("mdeq-digits"), sigma=0.5, n=1000)
        >>> image = dc.load_data("digits")[0].image
        >>> certifier.certify(image, seed=0).guarantee in ("audited", "standard")
        True
    """

    def __init__(
        self,
        model: EquilibriumModel,
        *,
        sigma: float,
        n0: int = 100,
        n: int = 10_000,
        alpha: float = 0.001,
        method: str = "srs",
        reference: str | SolverSpec | None = None,
        serial: str | SolverSpec | None = None,
        warmup: str | SolverSpec | None = None,
        start: str = "previous",
        chains: int = 400,
        audit: int | float | str = "auto",
        batch_size: int | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype | str | None = None,
    ) -> None:
        cold = SolverSpec.parse(reference or model.solver or "anderson:30")
        # A proved draw ends at its proof; until then it may take as long as a reference solve.
        warm = SolverSpec.parse(
            serial or (cold if method == "proved" else default_serial(cold, start))
        )
        first = SolverSpec.parse(warmup or default_warmup(cold))
        self.settings = Settings(
            sigma=float(sigma),
            n0=n0,
            n=n,
            alpha=float(alpha),
            method=method,
            reference=str(cold),
            serial=str(warm),
            warmup=str(first),
            start=start,
            chains=chains,
            audit=audit,
            dtype=precision_name(dtype),
        )
        self._serialization = Serialization(serial=warm, warmup=first, start=start, chains=chains)
        self.classifier = ReferenceClassifier(
            model, cold, sigma=self.settings.sigma, device=device, precision=self.settings.dtype
        )
        if method == "proved":
            require_proofs(self.classifier.model, start)
        if batch_size is None:
            batch_size = self.classifier.default_batch_size(cold, warm, first)
        self._batch = HardwareBatch(check_count("batch_size", batch_size))
        _warn_of_other_sigma(model, self.settings.sigma)

    @property
    def batch_size(self) -> int:
        """Rows computed at once; less than asked for once memory has run out."""
        return self._batch.rows

    @property
    def configuration(self) -> dict[str, Any]:
        """Settings and weights digest: what must agree for two runs to be one run."""
        return {**asdict(self.settings), "weights_digest": self.classifier.digest}

    def certify(
        self,
        image: Tensor | np.ndarray,  # (C, H, W)
        *,
        seed: int | None = None,
        index: int = 0,
        progress: Progress = no_progress,
    ) -> Certificate:
        """Certify one image.

        Args:
            image: Pixels in [0, 1], shape as the model's `input_shape`.
            seed: Seed of the noise, an integer >= 0 of any size; None takes one from the operating
                system and records it.
            index: Index of the image, part of the noise key: images of one run never share noise.
            progress: Called as ``progress(stage, done, total)`` after each hardware batch.

        Raises:
            InputError: Wrong shape, not finite, or a pixel outside [0, 1].

        Guarantee:
            If ``certificate.guarantee`` is not ``"none"``: with probability at least
            ``1 - alpha`` over the noise (and the audit), the smoothed class is
            ``certificate.prediction`` for every image closer than ``certificate.radius`` in L2.
        """
        started = time.perf_counter()
        seed, index = check_seed(fresh_seed() if seed is None else seed), _check_index(index)
        spent, pilot = Spent(), Spent()
        outcome = self._run(image, seed, index, self.settings, spent, pilot, progress)
        radius = certified_radius(outcome.p_lower, self.settings.sigma)
        certified = outcome.predicted is not None and radius > 0.0
        settings, how = self.settings, self._serialization
        return Certificate(
            prediction=outcome.predicted if certified else None,
            radius=radius if certified else 0.0,
            p_lower=outcome.p_lower,
            guarantee=outcome.guarantee,
            method=settings.method,
            sigma=settings.sigma,
            alpha=settings.alpha,
            alpha_count=outcome.alpha_count,
            alpha_audit=outcome.alpha_audit,
            n0=settings.n0,
            n=settings.n,
            counts0=tuple(map(int, outcome.counts0)),
            counts=tuple(map(int, outcome.counts)),
            count=outcome.count,
            audit=outcome.audit,
            reference=self._reference(),
            serial=settings.serial if outcome.serialized else None,
            warmup=settings.warmup if outcome.serialized else None,
            start=settings.start if outcome.serialized else None,
            chains=how.chains if outcome.serialized else None,
            noise=NOISE_STREAM,
            seed=seed,
            index=index,
            plan=outcome.plan,
            steps=spent.steps_quantiles(),
            residual=spent.residual_quantiles(),
            unconverged=spent.unconverged,
            cell_evaluations=spent.cell_evaluations + pilot.cell_evaluations,
            seconds=time.perf_counter() - started,
        )

    def _reference(self) -> Reference:
        """The base classifier: of proved labels the exact equilibrium, whatever computed them."""
        found = self.classifier.reference
        if self.settings.method != "proved":
            return found
        return replace(found, solver=EXACT, precision="exact", margin=0.0)

    def predict(
        self,
        image: Tensor | np.ndarray,  # (C, H, W)
        *,
        n: int = 1000,
        alpha: float = 0.001,
        seed: int | None = None,
        index: int = 0,
        progress: Progress = no_progress,
    ) -> int | None:
        """Return the smoothed class of one image, or None to abstain.

        Method ``standard`` is PREDICT of Cohen et al. (2019); a near tie (lead within the numeric
        margin) counts for the runner-up (THEORY 1.1). ``srs`` returns the class only if Theorem A
        proves a probability above 1/2, since serialized labels without an audit prove nothing.

        Args:
            image: Pixels in [0, 1], shape as the model's `input_shape`.
            n: Draws, >= 1.
            alpha: Probability of returning a class that is not the smoothed one, in (0, 1).
            seed: As in `certify`.
            index: As in `certify`.
            progress: As in `certify`.

        Raises:
            ConfigurationError: `n` or `alpha` out of range.
            InputError: As in `certify`.
        """
        seed, index = check_seed(fresh_seed() if seed is None else seed), _check_index(index)
        settings = replace(self.settings, n=n, alpha=float(alpha))
        if settings.method == "standard":
            sampler = self._sampler(image, seed, index, progress)
            labels = sampler.cold("predict", range(settings.n), Spent())
            return majority_class(
                labels,
                classes=self.classifier.num_classes,
                margin=self.classifier.margin,
                alpha=settings.alpha,
            )
        outcome = self._run(image, seed, index, settings, Spent(), Spent(), progress)
        return outcome.predicted if outcome.p_lower > 0.5 else None

    def _sampler(
        self, image: Tensor | np.ndarray, seed: int, index: int, progress: Progress
    ) -> Sampler:
        pixels = check_image(image, self.classifier.input_shape)
        noise = NoiseSource(
            seed=seed, index=index, shape=tuple(pixels.shape), sigma=self.settings.sigma
        )
        return Sampler(self.classifier, pixels, noise, batch_size=self._batch, progress=progress)

    def _run(
        self,
        image: Tensor | np.ndarray,
        seed: int,
        index: int,
        settings: Settings,
        spent: Spent,
        pilot: Spent,
        progress: Progress,
    ) -> Outcome:
        procedure = Procedure(
            n0=settings.n0,
            n=settings.n,
            alpha=settings.alpha,
            audit=settings.audit,
            serialization=self._serialization,
        )
        sampler = self._sampler(image, seed, index, progress)
        return METHODS[settings.method](sampler, procedure, spent, pilot)


def majority_class(
    labels: Labels,
    *,
    classes: int,
    margin: float,
    alpha: float,
) -> int | None:
    """Return the class that wins the exact two-sided test against its runner-up, or None.

    Cohen et al. (2019), Proposition 2. Near ties count for the runner-up: whichever way they would
    fall, the returned class stays the winner of the test. Failed draws form a group of their own.
    """
    clear = labels.clear(margin)
    counts = np.bincount(clear[clear >= 0], minlength=classes + 1)
    # Failed draws are a group of their own: it may win, but is never returned.
    counts[classes] = int((labels.label < 0).sum())
    ties = len(clear) - int(counts.sum())
    first, second = np.argsort(-counts, kind="stable")[:2]
    n_a, n_b = int(counts[first]), int(counts[second]) + ties
    if first == classes or n_a <= n_b:
        return None
    return int(first) if majority_p_value(n_a, n_b) <= alpha else None


def _check_index(index: int) -> int:
    if isinstance(index, bool) or not isinstance(index, (int, np.integer)) or index < 0:
        raise ConfigurationError(f"index must be an integer >= 0, but got {index!r}")
    return int(index)


def _warn_of_other_sigma(model: EquilibriumModel, sigma: float) -> None:
    card = getattr(model, "card", None) or {}
    trained = card.get("sigma")
    if isinstance(trained, (int, float)) and abs(trained - sigma) > 1e-9:
        warnings.warn(
            f"the model was trained at sigma {trained:g}, but is certified at sigma {sigma:g}; "
            "certificates hold, accuracy may suffer",
            NumericalWarning,
            stacklevel=3,
        )
