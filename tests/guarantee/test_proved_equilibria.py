"""Distances and labels of proofs against equilibria known to more digits than float64 has.

Random systems, states from near to absurd; not one bound may be broken.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from deqcert.models import MonDEQ, MonDEQConfig, inference_copy, solve_rows
from deqcert.models.mondeq_layers import QuadraticMatrix

ROWS = 40
SYSTEMS = 40


def system(seed: int, dtype: torch.dtype) -> tuple[MonDEQ, MonDEQ]:
    """A random model, strongly or barely monotone, and its inference copy."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    config = MonDEQConfig(
        input_shape=(1, 2, 3),
        num_classes=3,
        width=int(rng.integers(2, 7)),
        m=float(10.0 ** rng.uniform(-1.5, 1.5)),
        std=(0.3,),
    )
    model = MonDEQ(config).to(dtype)
    with torch.no_grad():
        for parameter in model.operator.parameters():
            parameter.mul_(float(10.0 ** rng.uniform(-1, 0.7)))
        model.source.layer.weight.mul_(float(10.0 ** rng.uniform(-1, 2)))
    folded = inference_copy(model.eval())
    assert isinstance(folded, MonDEQ)
    return model, folded


def exact_equilibrium(model: MonDEQ, x: Tensor) -> np.ndarray:
    """The equilibrium in long double: the linear system of the active units, refined.

    Which units are active is found by trying; with those the equilibrium solves a linear system,
    and refinement with residuals in long double leaves errors near 1e-18.
    """
    operator, layer = model.operator, model.source.layer
    assert isinstance(operator, QuadraticMatrix)
    a, b = (p.weight.detach().numpy().astype(np.longdouble) for p in (operator.a, operator.b))
    f = operator.m * np.eye(len(a), dtype=np.longdouble) + a.T @ a - b + b.T
    mean, std = (np.longdouble(v[0]) for v in (model.config.mean, model.config.std))
    u, c = (p.detach().numpy().astype(np.longdouble) for p in (layer.weight, layer.bias))
    bias = (x.flatten(1).numpy().astype(np.longdouble) - mean) / std @ u.T + c
    return _complementary(f, bias)


def _complementary(f: np.ndarray, rights: np.ndarray) -> np.ndarray:
    """Solve z >= 0, q = f z - right >= 0, z'q = 0 by trying every set of active units."""
    rows, n = rights.shape
    best, found = np.full(rows, np.inf), np.zeros_like(rights)
    for code in range(2**n):
        on = [i for i in range(n) if code >> i & 1]
        off = [i for i in range(n) if i not in on]
        z = np.zeros_like(rights)
        if on:
            inverse = np.linalg.inv(f[np.ix_(on, on)].astype(float))
            for _ in range(4):
                z[:, on] += (rights - z @ f.T)[:, on] @ inverse.T
        q = z @ f.T - rights
        fault = np.maximum(-z.min(axis=1), -q[:, off].min(axis=1, initial=0)).astype(float)
        better = fault < best
        best[better], found[better] = fault[better], z[better]
        if (best <= 0).all():
            break
    assert (best < 1e-12 * (1 + abs(rights).max())).all()
    return found


def states(model: MonDEQ, folded: MonDEQ, x: Tensor, exact: Tensor) -> list[Tensor]:
    """From a good solve through truncated ones to states that no solve would give."""
    injection = folded.inject(x)
    start = folded.initial_state(injection)
    some = [solve_rows(folded, x, f"picard:{k}")[1].state for k in (1, 4, 50, 300)]
    shape = start.shape
    far = [start, torch.rand(shape) * 100, -torch.rand(shape), torch.full(shape, 1e6)]
    near = [exact + torch.randn(shape) * size for size in (1e-9, 1e-5, 1e-1)]
    others = [exact.roll(1, 0)]  # other images' equilibria, as in a serialized run
    return [part.to(x.dtype) for part in (*some, *far, *near, *others)]  # pyright: ignore


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_distance_is_too_small_and_no_label_is_wrong(dtype):
    """40 random systems, 40 images each, 12 states each: 19,200 proofs per precision."""
    looked = proved = tight = 0
    for seed in range(SYSTEMS):
        model, folded = system(seed, dtype)
        x = torch.randn(ROWS, 1, 2, 3).to(dtype) * 0.5 + 0.5
        with np.errstate(all="raise", under="ignore"):
            exact = exact_equilibrium(model, x)
        head = model.head.layer
        weight, bias = (p.detach().numpy().astype(np.longdouble) for p in (head.weight, head.bias))
        logits = exact @ weight.T + bias
        label = torch.from_numpy(logits.argmax(axis=1))
        for state in states(model, folded, x, torch.from_numpy(exact.astype(float))):
            proof = folded.prove(state, folded.inject(x))
            gap = proof.point.numpy().astype(np.longdouble) - exact
            distance = np.linalg.norm(gap.astype(float), axis=1)
            claimed = proof.distance.numpy()
            assert (distance <= claimed).all(), (seed, (distance / claimed).max())
            named = proof.label >= 0
            assert torch.equal(proof.label[named], label[named])
            looked += len(x)
            proved += int(named.sum())
            tight += int((distance > 0.1 * claimed).sum())
    assert looked == SYSTEMS * ROWS * 12
    # The bounds say something: many labels are proved, and many distances nearly met.
    assert proved > 0.3 * looked
    assert tight > 0.05 * looked


def test_the_room_is_never_too_large():
    """Moving the proved point's equilibrium by less than the room keeps the class, whatever way."""
    torch.manual_seed(0)
    for seed in range(20):
        _, folded = system(seed, torch.float64)
        x = torch.randn(16, 1, 2, 3, dtype=torch.float64)
        proof = folded.prove(solve_rows(folded, x, "picard:3000:1e-13")[1].state, folded.inject(x))
        for row in range(16):
            room = float(proof.room[row])
            if room <= 0:
                continue
            for other in range(3):
                if other == int(proof.label[row]):
                    continue
                # The straight way to the border with another class, to just within the room.
                rows = folded.head.exact().map.weight
                way = rows[other] - rows[int(proof.label[row])]
                moved = proof.point[row] + (room - 1e-9) * way / way.norm()
                assert int(folded.head.exact().logits(moved[None])[0].argmax()) == int(
                    proof.label[row]
                )


def test_the_slack_is_needed():
    """Without it, bounds in the precision of the state break, as they do in THEORY 4.5."""
    broken = 0
    for seed in range(SYSTEMS):
        model, folded = system(seed, torch.float32)
        x = torch.randn(ROWS, 1, 2, 3) * 0.5 + 0.5
        exact = exact_equilibrium(model, x)
        state = solve_rows(folded, x, "picard:300:1e-7")[1].state
        assert isinstance(state, Tensor)
        with torch.no_grad():
            f, bias = folded.operator, folded.inject(x)[0]
            w = lambda z: z - f(z)  # noqa: E731, B023
            y = torch.relu(w(state) + bias)
            naive = w(state - y).norm(dim=1).numpy() / folded.config.m
        distance = np.linalg.norm((y.numpy() - exact).astype(float), axis=1)
        broken += int((distance > naive).sum())
    assert broken > 20


def test_the_residual_of_the_cone_is_no_larger_than_that_of_theory_4_1():
    """At y of 4.1, ours is the smallest residual for which y is an equilibrium."""
    for seed in range(40):
        model, folded = system(seed, torch.float64)
        x = torch.randn(ROWS, 1, 2, 3, dtype=torch.float64)
        bias, slack, _ = folded.inject(x)
        f = folded.operator.exact()
        z = torch.rand(ROWS, model.config.width, dtype=torch.float64)
        y = torch.relu(z - f.apply(z) + bias)
        r = z - y
        published = (r - f.apply(r)).norm(dim=1) / f.m
        q = f.apply(y) - bias
        ours = torch.where(y > 0, q, q.clamp_max(0.0)).norm(dim=1) / f.m
        assert (ours <= published * (1 + 1e-9) + 1e-12).all()
        assert slack is not None
