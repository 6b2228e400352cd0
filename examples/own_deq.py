"""Train and certify a deep equilibrium model of your own: python examples/own_deq.py"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import deqcert as dc


class OwnDEQ(dc.EquilibriumModel):
    """z = tanh(W z / 2 + U x + b), classified linearly: all a DEQ needs to be certified."""

    def __init__(self, width: int = 96) -> None:
        super().__init__(num_classes=10, input_shape=(1, 8, 8), solver="anderson:10")
        self.encode = nn.Linear(64, width)
        self.mix = nn.Linear(width, width, bias=False)
        self.decode = nn.Linear(width, 10)

    def inject(self, x: Tensor) -> Tensor:  # once per solve; standardise here, not before
        return self.encode((x.flatten(1) - 0.3) / 0.4)

    def initial_state(self, injection: Tensor) -> Tensor:
        return torch.zeros_like(injection)

    def cell(self, state: Tensor, injection: Tensor) -> Tensor:
        return torch.tanh(0.5 * self.mix(state) + injection)

    def classify(self, state: Tensor) -> Tensor:
        return self.decode(state)


def train(model: dc.EquilibriumModel, *, sigma: float, epochs: int = 10) -> None:
    """Train under the noise that the certificate will use; gradients are implicit."""
    data = dc.load_data("digits", split="train")
    images, labels = data.batch(range(len(data)))
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    model.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(data)).split(100):
            noisy = images[rows] + sigma * torch.randn_like(images[rows])
            optimiser.zero_grad()
            cross_entropy(model(noisy), labels[rows]).backward()
            optimiser.step()
    model.eval()


def main() -> None:
    torch.manual_seed(0)
    model = OwnDEQ()
    train(model, sigma=0.25)
    certifier = dc.Certifier(model, sigma=0.25, n=1000)
    data = dc.load_data("digits", split="test")
    for index in range(3):
        example = data[index]
        certificate = certifier.certify(example.image, seed=0, index=index)
        print(
            f"image {index}: label {example.label}, prediction {certificate.prediction}, "
            f"certified L2 radius {certificate.radius:.3f}"
        )


if __name__ == "__main__":
    main()
