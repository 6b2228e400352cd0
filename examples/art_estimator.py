"""A DEQ in the Adversarial Robustness Toolbox: attacked by ART, predicted and certified by deqcert.

    pip install deqcert adversarial-robustness-toolbox
    python examples/art_estimator.py

`SmoothedDEQ` is ART's smoothing estimator for PyTorch, so that everything in ART that takes one
works: gradients and attacks are ART's. Predictions and certificates are deqcert's: bounds with the
audit that serialized solves need, radii rounded down, keyed noise that can be made again.
"""

from __future__ import annotations

import numpy as np
import torch
from art.attacks.evasion import ProjectedGradientDescent
from art.estimators.certification.randomized_smoothing import PyTorchRandomizedSmoothing
from art.estimators.classification import PyTorchClassifier
from torch import nn

import deqcert as dc


def art_classifier(model: dc.EquilibriumModel, **settings: object) -> PyTorchClassifier:
    """Return the model without smoothing as ART's classifier; gradients are implicit."""
    return PyTorchClassifier(**{**_described(model), **settings})


class SmoothedDEQ(PyTorchRandomizedSmoothing):
    """ART's estimator of a smoothed DEQ.

    Args:
        model: The equilibrium model, whose gradients ART's attacks take.
        certifier: The certifier of the same model: sigma, alpha, method and draws are its own.
        seed: Seed of the noise of predictions and certificates; image i of a call has stream i.
        draws: Noisy copies of each prediction.
        sample_size: Noisy copies of each gradient.
    """

    def __init__(
        self,
        model: dc.EquilibriumModel,
        certifier: dc.Certifier,
        *,
        seed: int = 0,
        draws: int = 1000,
        sample_size: int = 32,
    ) -> None:
        settings = certifier.configuration
        super().__init__(
            **_described(model),
            sample_size=sample_size,
            scale=settings["sigma"],
            alpha=settings["alpha"],
        )
        self.certifier, self.seed, self.draws = certifier, seed, draws

    def predict(
        self, x: np.ndarray, batch_size: int = 128, verbose: bool = False, **kwargs: object
    ) -> np.ndarray:
        """Return one-hot smoothed classes, (images, classes); a row of zeros is an abstention."""
        del batch_size, verbose, kwargs
        found = np.zeros((len(x), self.nb_classes), dtype=np.float32)
        for index, image in enumerate(_images(x)):
            chosen = self.certifier.predict(
                image, n=self.draws, alpha=self.alpha, seed=self.seed, index=index
            )
            if chosen is not None:
                found[index, chosen] = 1.0
        return found

    def certify(
        self, x: np.ndarray, n: int | None = None, batch_size: int = 32
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return classes (-1: abstained) and certified L2 radii, both (images,)."""
        del batch_size
        planned = self.certifier.configuration["n"]
        if n not in (None, planned):
            raise ValueError(f"the certifier draws {planned} noisy copies, but n is {n}")
        certificates = [
            self.certifier.certify(image, seed=self.seed, index=index)
            for index, image in enumerate(_images(x))
        ]
        classes = [-1 if c.prediction is None else c.prediction for c in certificates]
        return np.array(classes), np.array([c.radius for c in certificates])


def _described(model: dc.EquilibriumModel) -> dict[str, object]:
    """Return what ART wants to know of a model."""
    return {
        "model": model,
        "loss": nn.CrossEntropyLoss(),
        "input_shape": model.input_shape,
        "nb_classes": model.num_classes,
        "clip_values": (0.0, 1.0),
        "device_type": "gpu" if next(model.parameters()).is_cuda else "cpu",
    }


def _images(x: np.ndarray) -> torch.Tensor:  # (images, C, H, W)
    return torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32))


def main() -> None:
    model = dc.load_model("mdeq-digits")
    images, labels = dc.load_data("digits", split="test").batch(range(5))
    smoothed = SmoothedDEQ(model, dc.Certifier(model, sigma=0.5, n=1000))
    classes, radii = smoothed.certify(images.numpy())
    attack = ProjectedGradientDescent(
        smoothed, norm=2, eps=0.25, eps_step=0.05, max_iter=5, verbose=False
    )
    attacked = attack.generate(images.numpy(), labels.numpy())
    after_attack = smoothed.predict(attacked)
    for k, (guess, radius) in enumerate(zip(classes, radii, strict=True)):
        after = after_attack[k]
        name = int(after.argmax()) if after.any() else "abstain"
        print(f"image {k}: class {guess}, L2 radius {radius:.3f}; attacked at 0.25: {name}")


if __name__ == "__main__":
    main()
