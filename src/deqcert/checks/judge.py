"""The smoothed classifier as the judge of an attack: PREDICT, with its right to abstain."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from deqcert.smoothing import Certifier, Sampler, majority_class
from deqcert.smoothing.classifier import check_image
from deqcert.smoothing.spent import Spent

HELD, ABSTAINED, FELL = "held", "abstained", "fell"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the smoothed classifier says at one image.

    Attributes:
        outcome: ``held``: the certified class with confidence; ``fell``: another class with
            confidence; ``abstained``: neither.
        label: The class returned, or None.
        share: Share of the draws labelled clearly with the certified class.
    """

    outcome: str
    label: int | None
    share: float


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Decides by n draws what the smoothed class of an image is.

    The answer is that of ``certifier.predict`` with method ``standard`` and the same seed; here the
    share of the class is kept too. The noise is that of the stage "predict", which no attack sees.

    Attributes:
        certifier: The run's classifier, with method ``standard``.
        n: Draws, >= 1.
        alpha: Probability of returning a class that is not the smoothed one, in (0, 1).
        seed: Seed of the noise.
    """

    certifier: Certifier
    n: int
    alpha: float
    seed: int

    def verdict(
        self,
        image: Tensor,  # (C, H, W)
        index: int,
        certified: int,
    ) -> Verdict:
        """Return what the smoothed classifier says, beside the class that was certified."""
        classifier = self.certifier.classifier
        pixels = check_image(image, classifier.input_shape)
        noise = self.certifier.noise(self.seed, index)
        sampler = Sampler(classifier, pixels, noise, batch_size=self.certifier.batch_size)
        labels = sampler.cold("predict", range(self.n), Spent())
        margin = classifier.margin
        found = majority_class(
            labels, classes=classifier.num_classes, margin=margin, alpha=self.alpha
        )
        outcome = ABSTAINED if found is None else HELD if found == certified else FELL
        share = float((labels.clear(margin) == certified).mean())
        return Verdict(outcome=outcome, label=found, share=share)
