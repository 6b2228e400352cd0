"""`Certifier`: one model, one noise level, one method; certificates and predictions of images."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deqcert.certificate import Certificate, Reference
from deqcert.errors import ConfigurationError, NumericalWarning
from deqcert.models import EquilibriumModel
from deqcert.models.devices import usable_device
from deqcert.smoothing.chains import Serialization
from deqcert.smoothing.classifier import ReferenceClassifier, check_image, precision_name
from deqcert.smoothing.hardware import HardwareBatch
from deqcert.smoothing.majority import majority_class, require_decisive
from deqcert.smoothing.methods import GUARANTEES, METHODS, Outcome, Procedure, given_up
from deqcert.smoothing.noise import NoiseSource, check_seed, fresh_seed
from deqcert.smoothing.proved import EXACT, require_proofs
from deqcert.smoothing.sampling import Draws, Progress, Sampler, no_progress
from deqcert.smoothing.settings import (
    Settings,
    check_count,
    check_number,
    default_serial,
    default_warmup,
)
from deqcert.smoothing.spent import Spent
from deqcert.smoothing.streams import make_stream
from deqcert.solvers import SolverSpec
from deqcert.stats import certified_radius


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
        reference: Solver of the base classifier; default: the model's own, else anderson:30. May
            have early exits, such as ``"picard:7,exits=2@0.69+4@0.15"`` (`SolverSpec`,
            `checks.tune`).
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
        noise_stream: Numbers the noise is made of: ``"host"``
            (``numpy-philox-block16-float32-v1``), the default on a CPU; ``"device"``
            (``torch-philox4x32-boxmuller-float32-v1``), made where the model runs, the default on a
            GPU; or the name that a run has recorded. Part of the run on whatever device.

    Raises:
        ConfigurationError: A setting is out of range, or `n` is too small for `alpha` (the message
            names the n needed).
        UnknownNameError: An unknown solver, method, start or noise stream.

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
        noise_stream: str | None = None,
    ) -> None:
        if not isinstance(model, EquilibriumModel):
            raise ConfigurationError(
                "model must be an EquilibriumModel, such as load_model gives, but got a "
                f"{type(model).__name__}"
            )
        cold = SolverSpec.parse(reference or model.solver or "anderson:30")
        # A proved draw ends at its proof; until then it may take as long as a reference solve.
        warm = SolverSpec.parse(
            serial or (cold.plain if method == "proved" else default_serial(cold, start))
        )
        first = SolverSpec.parse(warmup or default_warmup(cold))
        self.settings = Settings(
            sigma=check_number("sigma", sigma),
            n0=n0,
            n=n,
            alpha=check_number("alpha", alpha),
            method=method,
            reference=str(cold),
            serial=str(warm),
            warmup=str(first),
            start=start,
            chains=chains,
            audit=audit,
            dtype=precision_name(dtype),
        )
        self._stream = make_stream(noise_stream, usable_device(device))
        self._serialization = Serialization(
            serial=warm, warmup=first, start=start, chains=self.settings.chains
        )
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
        """Settings, model, noise stream: what must agree for two runs to be one run."""
        return {
            **asdict(self.settings),
            "weights_digest": self.classifier.digest,
            "architecture": self.classifier.architecture,
            "noise": self._stream.name,
        }

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
        seed = fresh_seed() if seed is None else seed
        return self.certificate(self.sampler(image, seed=seed, index=index, progress=progress))

    def certificate(self, sampler: Draws) -> Certificate:
        """Certify the image of a sampler: what `certify` does, wherever draws are labelled."""
        started = time.perf_counter()
        spent, pilot = Spent(), Spent()
        outcome = self._run(sampler, self.settings, spent, pilot)
        seconds = time.perf_counter() - started
        return self._record(outcome, sampler.noise, spent, pilot, seconds)

    def abstention(
        self, plan: Mapping[str, Any], *, seed: int, index: int, seconds: float
    ) -> Certificate:
        """Return the record of an image that was given up before anything was known about it.

        Args:
            plan: Its ``reason``, and what else should be on record.
            seed: Seed of the noise.
            index: Index of the image.
            seconds: Seconds spent.
        """
        outcome = given_up(
            np.zeros(self.classifier.num_classes, dtype=np.int64),
            {"method": "abstain", **plan},
            guarantee=GUARANTEES[self.settings.method],
        )
        return self._record(outcome, self.noise(seed, index), Spent(), Spent(), seconds)

    def _record(
        self, outcome: Outcome, noise: NoiseSource, spent: Spent, pilot: Spent, seconds: float
    ) -> Certificate:
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
            noise=noise.stream.name,
            seed=noise.seed,
            index=noise.index,
            plan=outcome.plan,
            steps=spent.steps_quantiles(),
            residual=spent.residual_quantiles(),
            unconverged=spent.unconverged,
            cell_evaluations=spent.cell_evaluations + pilot.cell_evaluations,
            seconds=seconds,
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
        proves a probability above 1/2, since serialized labels without an audit prove nothing; an
        audit of more than `n` draws is one of all of them. So does ``proved`` by proved labels.

        Args:
            image: Pixels in [0, 1], shape as the model's `input_shape`.
            n: Draws, >= 1.
            alpha: Probability of returning a class that is not the smoothed one, in (0, 1).
            seed: As in `certify`.
            index: As in `certify`.
            progress: As in `certify`.

        Raises:
            ConfigurationError: `n` or `alpha` out of range, `n` too small for `alpha` to ever
                decide (the message names the n needed), or the method is ``srs-paper``, of which
                no error probability is known.
            InputError: As in `certify`.
        """
        if self.settings.method == "srs-paper":
            raise ConfigurationError(
                "method 'srs-paper' gives no guarantee, so no alpha holds for its predictions; use "
                "standard or srs"
            )
        seed = fresh_seed() if seed is None else seed
        sampler = self.sampler(image, seed=seed, index=index, progress=progress)
        audit = self.settings.audit
        audit = min(audit, check_count("n", n)) if isinstance(audit, int) else audit
        settings = replace(self.settings, n=n, alpha=float(alpha), audit=audit)
        if settings.method == "standard":
            require_decisive(settings.n, settings.alpha)
            return majority_class(
                sampler.cold("predict", range(settings.n), Spent()),
                classes=self.classifier.num_classes,
                margin=self.classifier.margin,
                alpha=settings.alpha,
            )
        outcome = self._run(sampler, settings, Spent(), Spent())
        return outcome.predicted if outcome.p_lower > 0.5 else None

    def sampler(
        self,
        image: Tensor | np.ndarray,  # (C, H, W)
        *,
        seed: int,
        index: int,
        progress: Progress = no_progress,
    ) -> Sampler:
        """Return what labels draws of one image in this process.

        Raises:
            ConfigurationError: Seed or index out of range.
            InputError: As in `certify`.
        """
        pixels = check_image(image, self.classifier.input_shape)
        noise = self.noise(seed, index)
        return Sampler(self.classifier, pixels, noise, batch_size=self._batch, progress=progress)

    def noise(self, seed: int, index: int) -> NoiseSource:
        """Return the noise of one image.

        Raises:
            ConfigurationError: Seed or index out of range.
        """
        return NoiseSource(
            seed=check_seed(seed),
            index=_check_index(index),
            shape=tuple(self.classifier.input_shape),
            sigma=self.settings.sigma,
            stream=self._stream,
        )

    def _run(self, sampler: Draws, settings: Settings, spent: Spent, pilot: Spent) -> Outcome:
        procedure = Procedure(
            n0=settings.n0,
            n=settings.n,
            alpha=settings.alpha,
            audit=settings.audit,
            serialization=self._serialization,
        )
        return METHODS[settings.method](sampler, procedure, spent, pilot)


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
