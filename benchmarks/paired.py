"""Two certificates of every image side by side: radii, certified accuracy, average radius, time."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from console import markdown
from scipy.stats import bootstrap, norm

from deqcert.stats import certified_radius, clopper_pearson_lower

RADII = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
ALLOWED = 0.02
"""Difference of two radii, in units of sigma, that counts as none beside the sampling error."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two classifiers on the same noisy copies of one image.

    Attributes:
        label: The image's class.
        slow_class: Class selected by the slow side.
        fast_class: Class selected by ours.
        n: Draws of either side.
        slow_count: Draws labelled clearly as its class by the slow side.
        fast_count: The same for ours.
        only_slow: Draws that count for the slow side alone.
        only_fast: Draws that count for ours alone.
        disagreements: Draws with different labels.
    """

    label: int
    slow_class: int
    fast_class: int
    n: int
    slow_count: int
    fast_count: int
    only_slow: int
    only_fast: int
    disagreements: int

    def radius(self, count: int, sigma: float, alpha: float) -> float:
        """Return the certified radius from a count; 0 is abstaining."""
        return certified_radius(clopper_pearson_lower(count, self.n, alpha), sigma)

    def allowed(self, sigma: float, alpha: float) -> float:
        """Return by how much the two radii may differ: 0.02 sigma and 95 % sampling error.

        The difference of the counts, (draws for the slow side alone) - (for ours alone), has
        standard error sqrt(b + c - (b - c)^2 / n), b and c the two numbers. What 1.96 of those,
        rounded up to whole draws, move the slow side's radius by is the sampling error; half a
        draw is the least, since b = c = 0 is no certainty.
        """
        b, c = self.only_slow, self.only_fast
        error = math.sqrt(max(b + c - (b - c) ** 2 / self.n, 0.25))
        half = math.ceil(float(norm.ppf(0.975)) * error)
        centre = self.radius(self.slow_count, sigma, alpha)
        low = self.radius(max(self.slow_count - half, 0), sigma, alpha)
        high = self.radius(min(self.slow_count + half, self.n), sigma, alpha)
        return ALLOWED * sigma + max(centre - low, high - centre)


def paired_summary(
    results: dict[str, Any], *, sigma: float, alpha: float, n: int
) -> dict[str, Any]:
    """Return all comparisons over the images measured so far."""
    images = [v for k, v in results.items() if k.startswith("image ")]
    out: dict[str, Any] = {"images": len(images), "sigma": sigma, "alpha": alpha, "n": n}
    if not images:
        return out
    pairs = [Pair(**image["pair"]) for image in images]
    out |= _radii(pairs, sigma, alpha)
    timed = [v for k, v in results.items() if k.startswith("time ")]
    out["ours_in_full"] = _in_full(images)
    out["time"] = _times(timed, n) if timed else None
    draws = timed[0]["draws"] - timed[0]["timed_n"] + n if timed else n
    out["cell_evaluations_per_draw"] = {
        "images": _evaluations(images) / draws,
        "timed": _evaluations(timed) / draws if timed else None,
    }
    out["labels"] = results.get("labels")
    return out


def _radii(pairs: list[Pair], sigma: float, alpha: float) -> dict[str, Any]:
    slow = np.array([p.radius(p.slow_count, sigma, alpha) for p in pairs])
    fast = np.array([p.radius(p.fast_count, sigma, alpha) for p in pairs])
    slow_right = np.array([p.slow_class == p.label for p in pairs]) & (slow > 0)
    fast_right = np.array([p.fast_class == p.label for p in pairs]) & (fast > 0)
    allowed = np.array([p.allowed(sigma, alpha) for p in pairs])
    same_class = np.array([p.slow_class == p.fast_class for p in pairs]) | ((slow + fast) == 0)
    # Equal: no more apart than allowed, and not of different classes unless both abstain.
    equal = (np.abs(fast - slow) <= allowed) & same_class
    not_less = (fast >= slow - allowed) & same_class
    return {
        "n_of_pairs": pairs[0].n,
        "disagreement": float(np.mean([p.disagreements / p.n for p in pairs])),
        "radii_within": float(equal.mean()),
        "radii_not_smaller": float(not_less.mean()),
        "largest_difference_in_sigma": float(np.abs(fast - slow).max() / sigma),
        "median_allowed_in_sigma": float(np.median(allowed) / sigma),
        "certified_accuracy": {
            f"{r:g}": {
                "slow": float((slow_right & (slow >= r)).mean()),
                "ours": float((fast_right & (fast >= r)).mean()),
            }
            for r in RADII
        },
        "average_certified_radius": {
            "slow": float((slow * slow_right).mean()),
            "ours": float((fast * fast_right).mean()),
            "ratio": ratio_interval(fast * fast_right, slow * slow_right, _ratio_of_means),
        },
    }


def _evaluations(certified: list[dict[str, Any]]) -> float:
    """Return the mean cell evaluations of our certificates."""
    return statistics.fmean(one["ours"]["cell_evaluations"] for one in certified)


def _in_full(images: list[dict[str, Any]]) -> dict[str, Any]:
    """Return certified accuracy and average radius of our certificates with all their draws."""
    right = [image["ours"]["prediction"] == image["pair"]["label"] for image in images]
    radii = np.array([image["ours"]["radius"] for image in images]) * np.array(right)
    return {
        "certified_accuracy": {
            f"{r:g}": float((np.array(right) & (radii >= r)).mean()) for r in RADII
        },
        "average_certified_radius": float(radii.mean()),
    }


def _times(timed: list[dict[str, Any]], n: int) -> dict[str, Any]:
    """Return the other's time, scaled to n draws, over ours, of the images both took in turns."""
    n0 = round(timed[0]["draws"] - timed[0]["timed_n"])
    scaled = [t["seconds_per_draw"] * (n0 + n) for t in timed]
    ours = [t["ours"]["seconds"] for t in timed]
    in_turns = [s / o for s, o in zip(scaled, ours, strict=True)]
    return {
        "other_timed_draws": sum(t["draws"] for t in timed),
        "other_ms_per_draw": 1000 * statistics.fmean(t["seconds_per_draw"] for t in timed),
        "other_seconds_per_image_scaled": statistics.fmean(scaled),
        "ours_seconds_per_image": statistics.fmean(ours),
        "ratio": statistics.fmean(scaled) / statistics.fmean(ours),
        "ratio_in_turns": statistics.median(in_turns),
        "ratio_in_turns_range": [min(in_turns), max(in_turns)],
    }


def _ratio_of_means(a: np.ndarray, b: np.ndarray, axis: int = -1) -> np.ndarray:
    above, below = a.mean(axis=axis), b.mean(axis=axis)
    # A resample of nothing but abstentions has no ratio; a huge one keeps it at one end.
    return above / np.maximum(below, 1e-9)


def ratio_interval(
    a: np.ndarray, b: np.ndarray, statistic: Callable[..., np.ndarray]
) -> dict[str, float]:
    """Return a statistic of paired values with its 95 % bootstrap interval (percentile)."""
    value = float(statistic(a, b))
    if len(a) < 2 or not b.any():
        return {"value": value, "low": math.nan, "high": math.nan}
    found = bootstrap((a, b), statistic, paired=True, vectorized=True, rng=0, method="percentile")
    low, high = found.confidence_interval
    return {"value": value, "low": float(low), "high": float(high)}


def report(found: dict[str, Any]) -> str:
    """Return the comparison as Markdown."""
    if found["images"] == 0:
        return "no images yet\n"
    accuracy, average = found["certified_accuracy"], found["average_certified_radius"]
    head = ["certified accuracy at radius", *accuracy]
    body = [
        [name, *(f"{100 * accuracy[r][name]:.0f} %" for r in accuracy)] for name in ("slow", "ours")
    ]
    full = found["ours_in_full"]
    shares = full["certified_accuracy"].values()
    body.append([f"ours, n = {found['n']:,}", *(f"{100 * share:.0f} %" for share in shares)])
    ratio = average["ratio"]
    lines = [
        markdown(head, body),
        f"{found['images']} images, sigma {found['sigma']:g}, radii compared at n = "
        f"{found['n_of_pairs']:,}.",
        f"Radii within 0.02 sigma and the sampling error: {100 * found['radii_within']:.0f} %; "
        f"not smaller by more than that: {100 * found['radii_not_smaller']:.0f} %.",
        f"Average certified radius: {average['slow']:.4f} and {average['ours']:.4f}, ratio "
        f"{ratio['value']:.4f} [{ratio['low']:.4f}, {ratio['high']:.4f}]; ours with all "
        f"{found['n']:,} draws {full['average_certified_radius']:.4f}.",
        f"Draws labelled differently: {100 * found['disagreement']:.2f} %.",
    ]
    if found["time"]:
        spent = found["time"]
        lines.append(
            f"Seconds per image, n = {found['n']:,}: {spent['other_seconds_per_image_scaled']:.1f} "
            f"(scaled from {spent['other_timed_draws']:,} draws) and "
            f"{spent['ours_seconds_per_image']:.2f}: {spent['ratio']:.1f} times less; in single "
            "turns {:.1f} to {:.1f}.".format(*spent["ratio_in_turns_range"])
        )
        each = found["cell_evaluations_per_draw"]
        lines.append(
            f"Cell evaluations a draw of ours: {each['images']:.2f} over all images, "
            f"{each['timed']:.2f} over those that were timed."
        )
    if found["labels"]:
        both = found["labels"]
        lines.append(
            f"Noisy images labelled by both: {both['draws']}, of them differently {both['differ']}."
        )
    return "\n".join(lines) + "\n"
