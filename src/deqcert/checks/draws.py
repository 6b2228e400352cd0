"""Testing a record on some draws only, at their cost, and saying what that can show.

A record holds how many labels of each class there were, not which draw had which. So a few draws
cannot refute it by one differing label; they can by being too unlikely. Two exact tests:

*counts* (independent labels): D of the n recorded draws, chosen uniformly without replacement, are
made again from their keys. If the record is true the number of each class among them is
hypergeometric, whatever the labels are.

*claim* (serialized labels, which depend on all draws of their chain before them): D fresh draws are
labelled cold. If the class probability is at least `p_lower` their number of the class is at least
Binomial(D, p_lower) in distribution.

Both accuse a true record with probability at most `ERROR` in all, and find a false one where it is
false enough; how much that is, is said with each check. To find any false count at all, replay the
record whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from deqcert.checks.counts import is_serialized, selected_class, stopped
from deqcert.checks.problems import DrawCheck, Place, Problem
from deqcert.checks.read import Record
from deqcert.smoothing import Certifier
from deqcert.smoothing.chains import Serialization
from deqcert.smoothing.classifier import NO_CLASS, check_image
from deqcert.smoothing.noise import keyed_generator
from deqcert.smoothing.sampling import Progress, Sampler, count_labels, no_progress
from deqcert.smoothing.spent import Spent
from deqcert.solvers import SolverSpec

ERROR = 1e-6
"""Probability that true records are accused, over all tests of one verification."""

POWER = 0.99
"""What a conclusion calls "would have been found" is found with at least this probability."""


@dataclass(frozen=True)
class DrawTest:
    """How draws are tested.

    Attributes:
        certifier: The run's certifier.
        draws: Draws per record, >= 1.
        seed: Seed of the choice of draws and of fresh noise. Whoever writes the record must not
            know it beforehand.
        tests: Records that share `ERROR`.
        progress: Called after each hardware batch.
    """

    certifier: Certifier
    draws: int
    seed: int
    tests: int
    progress: Progress = no_progress

    def check(
        self,
        image: Tensor,  # (C, H, W)
        place: Place,
        record: Record,
    ) -> tuple[list[Problem], DrawCheck | None]:
        """Test one record; the second is None where it claims nothing that draws could test."""
        if len(record["counts0"]) != self.certifier.classifier.num_classes:
            return [], None  # reported already
        if stopped(record):
            return [], None  # no draws, no claim
        source = self._sampler(image, seed=record["seed"], index=record["index"])
        problems = list(self._selection(source, place, record))
        if is_serialized(record):
            more, found = self._claim(image, place, record)
        elif sum(record["counts"]) > 0:
            more, found = self._counts(source, place, record)
        else:
            more, found = [], None
        return [*problems, *more], found

    def _for_the_claim(self, sampler: Sampler, selected: int, *, proved: bool) -> int:
        """Count fresh draws that do not speak against the class.

        A near tie, or a label that is not proved, speaks for the claim: an accusation must not hang
        on rounding.
        """
        if proved:
            found = self._serialized(sampler, "verify", self.draws)
            return int(((found == selected) | (found == NO_CLASS)).sum())
        labels = sampler.cold("verify", range(self.draws), Spent())
        tied = (labels.lead <= sampler.classifier.margin) & (labels.label >= 0)
        return int(((labels.label == selected) | tied).sum())

    def _sampler(self, image: Tensor, *, seed: int, index: int) -> Sampler:
        certifier = self.certifier
        pixels = check_image(image, certifier.classifier.input_shape)
        return Sampler(
            certifier.classifier,
            pixels,
            certifier.noise(seed, index),
            batch_size=certifier.batch_size,
            progress=self.progress,
        )

    def _selection(self, sampler: Sampler, place: Place, record: Record) -> Iterator[Problem]:
        """Make all selection draws again: they are few, and their counts are exact."""
        classes, n0 = sampler.classifier.num_classes, self.certifier.settings.n0
        if record["method"] in ("srs-paper", "proved"):
            counts0 = count_labels(self._serialized(sampler, "selection", n0), classes)
        else:
            counts0 = sampler.cold_counts("selection", n0, Spent())
        why = "replayed: these are not the selection labels of this classifier under this noise"
        yield from place.expect("counts0", record["counts0"], counts0.tolist(), why)

    def _serialized(self, sampler: Sampler, stage: str, n: int) -> np.ndarray:  # (n,) int16
        """Return serialized labels of the run's kind, or proved ones where that is its method."""
        settings = self.certifier.settings
        how = Serialization(
            serial=SolverSpec.parse(settings.serial),
            warmup=SolverSpec.parse(settings.warmup),
            start=settings.start,
            chains=settings.chains,
        )
        proved = settings.method == "proved"
        return sampler.serialized(stage, n, how, Spent(), proved=proved)

    def _counts(
        self, sampler: Sampler, place: Place, record: Record
    ) -> tuple[list[Problem], DrawCheck]:
        n, drawn = record["n"], min(self.draws, record["n"])
        random = keyed_generator(self.seed, record["index"], "verify-choice")
        chosen = np.sort(random.choice(n, size=drawn, replace=False))
        labels = sampler.cold("estimation", chosen, Spent()).clear(sampler.classifier.margin)
        counts = count_labels(labels, len(record["counts"])).tolist()
        level = ERROR / (2 * self.tests * (len(counts) + 1))
        problems: list[Problem] = []
        # Draws without a label are a group like the others: hiding them raises no count.
        recorded = [*record["counts"], n - sum(record["counts"])]
        for name, total, found in zip(
            [*map(str, range(len(counts))), "none"],
            recorded,
            [*counts, drawn - sum(counts)],
            strict=True,
        ):
            p_value = hypergeometric_tail(n, total, drawn, found)
            if p_value <= level:
                why = (
                    f"so few or many of {drawn} recorded draws have probability {p_value:.1g} "
                    "under this count"
                )
                shown = f"{found} of {drawn} draws"
                problems.append(place.problem(f"counts[{name}]", total, shown, why))
        selected = selected_class(record) or 0
        found = counts[selected]
        return problems, DrawCheck(
            index=record["index"],
            kind="counts",
            draws=drawn,
            found=found,
            level=level,
            p_value=hypergeometric_tail(n, recorded[selected], drawn, found),
            conclusion=_counts_conclusion(n, recorded[selected], drawn, level),
        )

    def _claim(
        self, image: Tensor, place: Place, record: Record
    ) -> tuple[list[Problem], DrawCheck | None]:
        from scipy import stats  # not at the top: it takes a second to import

        selected = selected_class(record)
        if selected is None or record["p_lower"] <= 0.0:
            return [], None
        # The verifier's own seed: noise that nobody can have certified with.
        sampler = self._sampler(image, seed=self.seed, index=record["index"])
        found = self._for_the_claim(sampler, selected, proved=record["method"] == "proved")
        p_value = float(stats.binom.cdf(found, self.draws, record["p_lower"]))
        level = ERROR / self.tests
        problems = []
        if p_value <= level:
            why = (
                f"so few of {self.draws} fresh draws have probability {p_value:.1g} if the class "
                "has the probability claimed: the certificate is false, whatever its record says"
            )
            shown = f"{found} of {self.draws} fresh draws"
            problems.append(place.problem("p_lower", record["p_lower"], shown, why))
        return problems, DrawCheck(
            index=record["index"],
            kind="claim",
            draws=self.draws,
            found=found,
            level=level,
            p_value=p_value,
            conclusion=_claim_conclusion(record["p_lower"], self.draws, level),
        )


def hypergeometric_tail(n: int, total: int, drawn: int, found: int) -> float:
    """Return the smaller tail at `found` of D draws out of n, `total` of them of the class."""
    from scipy import stats  # not at the top: it takes a second to import

    law = stats.hypergeom(n, total, drawn)
    return float(min(law.cdf(found), law.sf(found - 1)))


def _counts_conclusion(n: int, recorded: int, drawn: int, level: float) -> str:
    if drawn == n:
        return "all draws: any other count would have been found"
    true = counts_refuted_below(n, recorded, drawn, level)
    if true is None:
        return "too few draws to refute a count this small"
    return f"a true count of {true:,} or less would have been found ({recorded:,} recorded)"


def counts_refuted_below(n: int, recorded: int, drawn: int, level: float) -> int | None:
    """Return the largest true count that `drawn` draws tell from `recorded`, or None.

    A record of `recorded` draws of the class is then accused with probability `POWER` or more.
    """
    from scipy import stats  # not at the top: it takes a second to import

    # The most findings at which the lower tail still accuses.
    most = int(stats.hypergeom.ppf(level, n, recorded, drawn))
    most -= stats.hypergeom.cdf(most, n, recorded, drawn) > level
    if most < 0:
        return None
    return _largest(lambda k: float(stats.hypergeom.cdf(most, n, k, drawn)) >= POWER, 0, recorded)


def _claim_conclusion(p_lower: float, draws: int, level: float) -> str:
    p = claim_refuted_below(p_lower, draws, level)
    if p is None:
        return "too few draws to refute this claim"
    return f"a class probability of {p:.3f} or less would have been found ({p_lower:.3f} claimed)"


def claim_refuted_below(p_lower: float, draws: int, level: float) -> float | None:
    """Return the class probability that `draws` tell from `p_lower` with `POWER`, or None."""
    from scipy import stats  # not at the top: it takes a second to import

    most = int(stats.binom.ppf(level, draws, p_lower))
    most -= stats.binom.cdf(most, draws, p_lower) > level
    return None if most < 0 else float(stats.beta.ppf(1.0 - POWER, most + 1, draws - most))


def _largest(holds: Callable[[int], bool], low: int, high: int) -> int | None:
    """Return the largest k in [low, high] for which `holds`, which is true up to some k only."""
    if not holds(low):
        return None
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low
