"""Deterministic certificates, attacked inside their radius by sampling and by gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from deqcert.deterministic import DeterministicCertificate, IntervalCertifier, LipschitzCertifier
from deqcert.errors import ConfigurationError, DeqcertError, InputError
from deqcert.models import GradientSpec, MonDEQ, MonDEQConfig, inference_copy, solve_rows
from tests.models.made import tiny_mdeq

EXACT = "picard:500:1e-13"


def trained(**changes) -> MonDEQ:
    """A small model taught to tell where in the image the light is, so that margins are real."""
    torch.manual_seed(3)
    settings = {"width": 10, "mean": (0.4,), "std": (0.3,), **changes}
    model = MonDEQ(MonDEQConfig(input_shape=(1, 4, 4), num_classes=4, **settings))
    model.gradient = GradientSpec(method="unrolled", steps=15)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    for _ in range(80):
        x, y = quarters(64)
        loss = torch.nn.functional.cross_entropy(model.train()(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def quarters(count: int) -> tuple[Tensor, Tensor]:
    """Images with one brighter quarter, and which one."""
    label = torch.randint(0, 4, (count,))
    x = 0.4 * torch.rand(count, 1, 4, 4)
    for row, quarter in enumerate(label.tolist()):
        top, left = 2 * (quarter // 2), 2 * (quarter % 2)
        x[row, 0, top : top + 2, left : left + 2] += 0.4
    return x, label


KINDS = {
    "dense": {"m": 2.0},
    "reflections": {"m": 2.0, "splitting": "peaceman-rachford"},
    "conv": {"m": 2.0, "kind": "conv", "width": 3, "pool": 2},
    "absolute": {"constraint": "absolute", "m": 0.5},
    "conv-absolute": {
        "constraint": "absolute", "m": 0.5, "kind": "conv", "width": 3, "pool": 2
    },
}  # fmt: skip
MODELS: dict[str, MonDEQ] = {}


def model_of(name: str) -> MonDEQ:
    if name not in MODELS:
        MODELS[name] = trained(**KINDS[name])
    return MODELS[name]


def logits_at(model: MonDEQ, x: Tensor) -> Tensor:
    """Differentiable logits of the long-solved equilibrium, float64."""
    model.gradient = GradientSpec(method="unrolled", steps=30)
    model.train()
    return model(x)


def descend(model: MonDEQ, x: Tensor, label: Tensor, project, size: Tensor) -> Tensor:
    """PGD on the lead of the class, from a random point of the ball; the perturbed images."""
    delta = project(torch.randn_like(x), size)
    for _ in range(15):
        delta.requires_grad_()
        out = logits_at(model, x + delta)
        own = out.gather(1, label[:, None])
        rest = out.scatter(1, label[:, None], -torch.inf).amax(dim=1, keepdim=True)
        (slope,) = torch.autograd.grad((own - rest).sum(), delta)
        delta = project(delta.detach() - 0.3 * step_of(slope, project) * size, size)
    return (x + delta).detach()


def l2(delta: Tensor, size: Tensor) -> Tensor:
    norm = delta.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    return delta * (size / norm).clamp_max(1.0)


def linf(delta: Tensor, size: Tensor) -> Tensor:
    return torch.minimum(torch.maximum(delta, -size), size)


def step_of(slope: Tensor, project) -> Tensor:
    if project is linf:
        return slope.sign()
    return slope / slope.flatten(1).norm(dim=1).view(-1, 1, 1, 1).clamp_min(1e-30)


def check(model: MonDEQ, certificates, x: Tensor, project, clip: bool) -> None:
    """No sampled and no attacked image within the radius has another class."""
    label = torch.tensor([c.prediction for c in certificates])
    radius = torch.tensor([c.radius for c in certificates], dtype=torch.float64)
    assert (radius > 0).float().mean() > 0.5
    size = radius.view(-1, 1, 1, 1)
    attacker = inference_copy(model, dtype=torch.float64)
    copy = MonDEQ(model.config).double()
    copy.load_state_dict(model.state_dict())
    tries = [descend(copy, x.double(), label, project, size) for _ in range(2)]
    for _ in range(6):
        far = torch.randn_like(x).double()
        far = far.sign() * size if project is linf else l2(far * 1e9, size)
        tries.append(x.double() + far)
    for moved in tries:
        inside = moved.clamp(0, 1) if clip else moved
        found = solve_rows(attacker, inside, EXACT)[0].argmax(dim=1)
        assert torch.equal(found, label)


@pytest.mark.parametrize("name", sorted(KINDS))
def test_no_l2_attack_succeeds_inside_the_radius(name):
    model = model_of(name)
    x, y = quarters(24)
    certificates = LipschitzCertifier(model).certify(x)
    assert sum(c.prediction == int(t) for c, t in zip(certificates, y, strict=True)) > 18
    check(model, certificates, x, l2, clip=False)


@pytest.mark.parametrize("within_pixels", [True, False])
@pytest.mark.parametrize("name", ["absolute", "conv-absolute"])
def test_no_linf_attack_succeeds_inside_the_radius(name, within_pixels):
    model = model_of(name)
    x, y = quarters(24)
    certifier = IntervalCertifier(model, within_pixels=within_pixels, resolution=1e-3)
    certificates = certifier.certify(x)
    assert sum(c.prediction == int(t) for c, t in zip(certificates, y, strict=True)) > 18
    check(model, certificates, x, linf, clip=within_pixels)
    label = torch.tensor([c.prediction for c in certificates])
    radius = torch.tensor([c.radius for c in certificates])
    assert certifier.certified(x, label, radius).all()
    assert not certifier.certified(x, (label + 1) % 4, 0.0).any()


@pytest.mark.parametrize("name", ["absolute", "conv-absolute"])
def test_boxes_enclose_every_equilibrium(name):
    model = inference_copy(model_of(name), dtype=torch.float64)
    assert isinstance(model, MonDEQ)
    certifier = IntervalCertifier(model_of(name), steps=60)
    x = quarters(6)[0].double()
    for radius in (0.0, 0.01, 0.3):
        lo, hi, distance = certifier._system._boxes(x - radius, x + radius, 60)
        for _ in range(50):
            moved = x + radius * (2 * torch.rand_like(x) - 1)
            z = solve_rows(model, moved, EXACT)[1].state
            assert isinstance(z, Tensor)
            slack = distance.view(-1, *[1] * (z.ndim - 1)) + 1e-10
            assert (z >= lo - slack).all()
            assert (z <= hi + slack).all()


def test_an_unfinished_solve_gives_smaller_radii_and_no_wrong_one():
    """The distance to the exact equilibrium is taken off, however far it is."""
    model = model_of("dense")
    x, _ = quarters(30)
    exact = LipschitzCertifier(model, solver="picard:500:1e-12").certify(x)
    shares = []
    for steps in (1, 2, 4, 16):
        short = LipschitzCertifier(model, solver=f"picard:{steps}").certify(x)
        for one, other in zip(short, exact, strict=True):
            assert one.radius <= other.radius * (1 + 1e-9)
            assert one.prediction in (None, other.prediction)
            assert one.distance >= other.distance
        shares.append(sum(c.radius for c in short))
    assert shares == sorted(shares)
    assert shares[0] < 0.5 * shares[-1]

    boxes = model_of("absolute")
    exact = IntervalCertifier(boxes, steps=60, resolution=1e-3).certify(x)
    for steps in (1, 3, 8):
        short = IntervalCertifier(boxes, steps=steps, resolution=1e-3).certify(x)
        for one, other in zip(short, exact, strict=True):
            assert one.radius <= other.radius + 1e-3


def test_radii_are_not_vacuous():
    """An attack twice to twelve times further out succeeds: the radii are no vanishing numbers."""
    model = model_of("dense")
    x, _ = quarters(40)
    certificates = LipschitzCertifier(model).certify(x)
    label = torch.tensor([c.prediction for c in certificates])
    size = torch.tensor([c.radius for c in certificates], dtype=torch.float64) * 12
    copy = MonDEQ(model.config).double()
    copy.load_state_dict(model.state_dict())
    moved = descend(copy, x.double(), label, l2, size.view(-1, 1, 1, 1))
    found = solve_rows(inference_copy(model, dtype=torch.float64), moved, EXACT)[0].argmax(dim=1)
    assert (found != label).float().mean() > 0.3


def test_records_round_trip_and_name_norm_and_guarantee():
    x, _ = quarters(2)
    two = LipschitzCertifier(model_of("dense")).certify(x, indices=[7, 9])
    inf = IntervalCertifier(model_of("absolute")).certify(x)
    assert [c.norm for c in (*two, *inf)] == ["L2", "L2", "Linf", "Linf"]
    assert {c.guarantee for c in (*two, *inf)} == {"deterministic"}
    assert [c.index for c in two] == [7, 9]
    assert inf[0].domain == "pixels"
    for certificate in (*two, *inf):
        assert DeterministicCertificate.from_json(certificate.to_json()) == certificate
        assert certificate.facts["m"] in (0.5, 2.0)
    with pytest.raises(DeqcertError, match="norm"):
        DeterministicCertificate.from_json({**two[0].to_json(), "norm": "L1"})
    with pytest.raises(DeqcertError, match="missing"):
        DeterministicCertificate.from_json({})


def test_misuse_is_named():
    with pytest.raises(ConfigurationError, match="monotone"):
        LipschitzCertifier(tiny_mdeq(1))
    with pytest.raises(ConfigurationError, match="absolute"):
        IntervalCertifier(model_of("dense"))
    with pytest.raises(ConfigurationError, match="resolution"):
        IntervalCertifier(model_of("absolute"), resolution=1.0)
    certifier = LipschitzCertifier(model_of("dense"))
    with pytest.raises(InputError, match="0, 1"):
        certifier.certify(torch.full((1, 1, 4, 4), 1.5))
    with pytest.raises(InputError, match="shape"):
        certifier.certify(torch.zeros(1, 1, 3, 3))
    with pytest.raises(InputError, match="finite"):
        certifier.certify(torch.full((1, 1, 4, 4), torch.nan))
