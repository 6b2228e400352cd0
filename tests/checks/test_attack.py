"""`deqcert attack`: it attacks in earnest, stays within its bounds, and certificates withstand."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from deqcert.checks import AttackSpec, attack_run
from deqcert.checks.judge import Judge
from deqcert.checks.pgd import along, ascend, differentiable, project, score_gradient
from deqcert.data import load_data
from deqcert.errors import ConfigurationError, RunFolderError
from deqcert.models import from_classifier
from deqcert.smoothing import Certifier
from deqcert.solvers import SolverSpec
from tests.checks.runs import Forgery, MeansDEQ, make_run
from tests.problems import SHAPE, LinearDEQ, image_at

CPU = torch.device("cpu")
QUICK = AttackSpec(distances=(0.5, 1.0, 2.0, 5.0), steps=8, samples=8, n=300)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("run") / "run", "standard")


@pytest.fixture(scope="module")
def attacked(run: Path):
    return attack_run(run, model=MeansDEQ(), spec=QUICK, seed=0)


def test_none_falls_inside_and_most_fall_far_outside(attacked):
    assert len(attacked.images) == 10
    assert attacked.fallen_inside == ()
    for name in ("smooth-pgd", "pgd"):
        assert attacked.cell(name, 0.5).fell == attacked.cell(name, 1.0).fell == 0
        assert attacked.cell(name, 5.0).fell >= 5
        assert attacked.cell(name, 5.0).share < 0.2
    assert attacked.cell("base", 5.0).fell == 10
    assert attacked.cell("random", 2.0).fell == 0


def test_the_attack_lowers_the_share_far_more_than_a_random_direction_of_its_length(attacked):
    clean = np.mean([image["share"] for image in attacked.images])
    for distance in (1.0, 2.0):
        smooth, random = (attacked.cell(name, distance) for name in ("smooth-pgd", "random"))
        assert random.length == pytest.approx(smooth.length, rel=1e-3)
        assert clean - smooth.share > 5 * max(clean - random.share, 0.01)


def test_shifts_are_shorter_than_they_may_be_and_inside_the_open_ball(attacked):
    for image in attacked.images:
        for outcome in image["outcomes"]:
            limit = outcome["distance"] * image["radius"]
            assert outcome["length"] < limit
            if outcome["attack"] == "random":
                assert outcome["length"] == pytest.approx(limit, rel=1e-4)


def test_an_inflated_radius_is_refuted(run: Path, tmp_path: Path):
    """Four times the certified radius, claimed as certified: the attack finds falls inside."""
    forged = Forgery.of(run, tmp_path / "run")
    for record in forged.records:
        record["radius"] *= 4
    forged.save()
    spec = AttackSpec(distances=(1.0,), steps=8, samples=8, n=300)
    out = tmp_path / "attack"
    found = attack_run(forged.path, model=MeansDEQ(), spec=spec, limit=3, out=out, seed=0)
    assert len(found.fallen_inside) >= 2


def test_a_stopped_attack_goes_on_and_gives_the_same(run: Path, tmp_path: Path, attacked):
    out = tmp_path / "attack"
    facts = {"model": MeansDEQ(), "spec": QUICK, "out": out}
    attack_run(run, **facts, limit=2, seed=0)
    path = out / "attack.jsonl"
    path.write_bytes(path.read_bytes()[:-20])  # as a kill within a write would leave it
    seen = []
    found = attack_run(run, **facts, limit=4, watch=lambda done, total, what: seen.append(done))
    assert seen == [1, 2, 3]
    assert found.seed == 0
    timeless = [{**image, "seconds": 0} for image in found.images]
    assert timeless == [{**image, "seconds": 0} for image in attacked.images[:4]]
    assert [json.loads(line)["index"] for line in path.read_text().splitlines()] == [0, 40, 80, 120]
    with pytest.raises(RunFolderError, match=r"attack\.steps 8 there, 9 now"):
        attack_run(run, model=MeansDEQ(), spec=AttackSpec(steps=9), out=out)
    with pytest.raises(RunFolderError, match="seed 0 there, 1 now"):
        attack_run(run, **facts, seed=1)


def test_table_plot_and_json_say_that_it_is_no_proof(attacked):
    png, pdf = attacked.write_plot()
    assert png.stat().st_size > 10_000
    assert pdf.read_bytes().startswith(b"%PDF")
    content = attacked.to_json()
    assert "no proof" in content["caveat"]
    assert content["fallen_inside"] == []
    assert len(content["summary"]) == 4 * len(QUICK.distances)


def test_the_table_fits_into_80_columns(attacked):
    """Only headings take several lines: a share is never torn from its per cent sign."""
    written = io.StringIO()
    Console(file=written, width=80).print(attacked)
    rows = [line for line in written.getvalue().splitlines() if "%" in line]
    assert len(rows) == len(QUICK.distances)
    assert all(row.count(" %") == 4 for row in rows)


def test_the_judge_is_predict():
    """Class and abstention are those of `Certifier.predict` under the same seed."""
    certifier = Certifier(LinearDEQ(), sigma=0.25, n=100, method="standard")
    judge = Judge(certifier=certifier, n=200, alpha=0.01, seed=5)
    outcomes = set()
    for index, margin in enumerate((0.3, 0.02, 0.0, -0.2)):
        verdict = judge.verdict(image_at(margin), index, certified=1)
        told = certifier.predict(image_at(margin), n=200, alpha=0.01, seed=5, index=index)
        assert verdict.label == told
        outcomes.add(verdict.outcome)
    assert outcomes == {"held", "abstained", "fell"}


def test_against_a_linear_model_smooth_pgd_goes_straight_for_the_line():
    """The nearest point of the other class is known: half way there holds, a bit beyond falls."""
    distance = 0.2
    logits, gradient = differentiable(LinearDEQ(), SolverSpec.parse("picard:3"), device=CPU)
    assert gradient == "unrolled"
    lengths = torch.tensor([0.5 * distance, 1.001 * distance])
    noise = torch.randn(64, *SHAPE, generator=torch.Generator().manual_seed(0)) / 4
    moved = ascend(
        logits, image_at(distance), torch.tensor([0.0, 1.0]), lengths, lambda step: noise, steps=5
    )
    model = LinearDEQ()
    assert model.true_margin(moved[0]) == pytest.approx(0.5 * distance, rel=1e-3)
    assert model.true_margin(moved[1]) < 0


def test_gradients_are_those_of_finite_differences():
    image = load_data("digits")[0].image[None]
    draws = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)) / 4
    target = torch.eye(10)[9]
    way = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    for solver, steps in (("picard:6", 6), ("anderson:40", 80)):
        logits, _ = differentiable(MeansDEQ(), SolverSpec.parse(solver), device=CPU)
        found = score_gradient(logits, image, target, draws)
        assert float(found.norm()) == pytest.approx(1.0, rel=1e-4)
        directions = (found, way / way.norm(), torch.flip(found, (3,)))
        length, *slopes = (_slope(image, d, draws, steps) for d in directions)
        # Along itself the slope is the gradient's length; elsewhere its projection.
        assert length > 0.01
        for slope, direction in zip(slopes, directions[1:], strict=True):
            assert slope == pytest.approx(length * float((found * direction).sum()), abs=0.01)


@torch.no_grad()
def _slope(image: torch.Tensor, direction: torch.Tensor, draws: torch.Tensor, steps: int) -> float:
    """Return the slope of -log of the mean softmax of class 9, by central differences."""
    model = MeansDEQ().double()

    def loss(x: torch.Tensor) -> float:
        injection = model.inject(x.double() + draws.double())
        state = torch.zeros_like(injection)
        for _ in range(steps):
            state = model.cell(state, injection)
        return -math.log(float(model.classify(state).softmax(1)[:, 9].mean()))

    step = 1e-3
    return (loss(image + step * direction) - loss(image - step * direction)) / (2 * step)


def test_the_projection_is_the_nearest_point_of_ball_and_cube():
    """Against Dykstra's alternating projections, which converge to the nearest point."""
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(20, 1, 4, 4, generator=generator)
    moved = clean + torch.randn(20, 1, 4, 4, generator=generator)
    lengths = torch.rand(20, generator=generator) + 0.2
    found = project(clean, moved, lengths)
    assert float(found.min()) >= 0.0
    assert float(found.max()) <= 1.0
    x, first, second = moved.double(), torch.zeros(20, 1, 4, 4), torch.zeros(20, 1, 4, 4)
    base = clean.double()
    for _ in range(2000):
        y = x + first
        shift = y - base
        norm = shift.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
        ball = base + shift * (lengths.double().reshape(-1, 1, 1, 1) / norm).clamp_max(1.0)
        first = y - ball
        x = (ball + second).clamp(0.0, 1.0)
        second = ball + second - x
    assert float((found.double() - x).abs().max()) < 1e-4


def test_short_directions_stop_where_pixels_end():
    clean = torch.full((2, 1, 2, 2), 0.5)
    way = torch.ones(2, 1, 2, 2)
    found = along(clean, way, torch.tensor([0.3, 5.0]), most=1e6)
    assert float((found[0] - clean[0]).norm()) == pytest.approx(0.3, rel=1e-5)
    assert torch.equal(found[1], torch.ones(1, 2, 2))


def test_plain_networks_can_be_attacked_too():
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]))
    model = from_classifier(net, num_classes=2, input_shape=SHAPE)
    logits, gradient = differentiable(model, SolverSpec.parse("picard:1"), device=CPU)
    assert gradient == "unrolled"
    away = score_gradient(
        logits, torch.full((1, *SHAPE), 0.5), torch.tensor([0.0, 1.0]), torch.zeros(1, *SHAPE)
    )
    assert torch.allclose(away.flatten(), torch.tensor([-1.0, 0.0]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps must be"),
        ({"samples": 0}, "samples must be"),
        ({"distances": ()}, "distances must be"),
        ({"distances": (0.0,)}, "distances must be"),
        ({"distances": (math.inf,)}, "distances must be"),
        ({"n": 10}, "can never decide at alpha = 0.001, even if all agree: it needs n >= 11"),
        ({"n": 0}, "n must be"),
        ({"alpha": 1.0}, "alpha must lie"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict, message: str):
    with pytest.raises(ConfigurationError, match=message):
        AttackSpec(**settings)


def test_a_seed_that_is_none_is_not_kept(run: Path, tmp_path: Path):
    out = tmp_path / "attack"
    with pytest.raises(ConfigurationError, match="seed must be"):
        attack_run(run, model=MeansDEQ(), spec=QUICK, seed=-1, out=out)
    assert attack_run(run, model=MeansDEQ(), spec=QUICK, seed=1, limit=1, out=out).seed == 1


def test_one_attack_at_a_time_writes_a_folder(run: Path, tmp_path: Path):
    out, tried = tmp_path / "attack", []
    facts = {"model": MeansDEQ(), "spec": QUICK, "out": out, "limit": 1}

    def meanwhile(done: int, total: int, what: str) -> None:
        with pytest.raises(RunFolderError, match="being written by another process"):
            attack_run(run, **facts)
        tried.append(what)

    attack_run(run, **facts, watch=meanwhile)
    assert tried == ["image 0"]
    assert len((out / "attack.jsonl").read_text().splitlines()) == 1
    assert len(attack_run(run, **facts).images) == 1


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("attack.json", "[]", "it is no table with a seed"),
        ("attack.json", '{"seed": "1"}', "it is no table with a seed"),
        ("attack.json", "{", "damaged"),
        ("attack.jsonl", "[]\n", "line 1, is damaged: it is not the outcome"),
        ("attack.jsonl", '{"index": 0, "outcomes": [{"attack": "pgd"}]}\n', "line 1, is damaged"),
        ("attack.jsonl", None, "line 2, is damaged: it is a second one of image 0"),
    ],
)
def test_damaged_results_are_refused(
    run: Path, tmp_path: Path, file: str, content: str | None, message: str
):
    out = tmp_path / "attack"
    facts = {"model": MeansDEQ(), "spec": QUICK, "out": out, "limit": 1}
    attack_run(run, **facts)
    path = out / file
    path.write_text(2 * path.read_text() if content is None else content)
    with pytest.raises(RunFolderError, match=message):
        attack_run(run, **facts)


def test_a_run_that_cannot_be_one_is_not_attacked(run: Path, tmp_path: Path):
    forged = Forgery.of(run, tmp_path / "settings")
    forged.content["configuration"]["n"] = "many"
    forged.save()
    with pytest.raises(RunFolderError, match=r"run\.json that is not that of a run"):
        attack_run(forged.path, model=MeansDEQ())
    for name, value, message in (
        ("index", 10**6, "a record of image 1000000, class 9, which .* has not"),
        ("prediction", 10, "a record of image 40, class 10"),
        ("alpha", 2.0, "its alpha is 2.0"),
    ):
        forged = Forgery.of(run, tmp_path / name)
        forged.record[name] = value
        forged.save(table=False)
        with pytest.raises(RunFolderError, match=message):
            attack_run(forged.path, model=MeansDEQ(), spec=QUICK)


def test_another_model_or_none_is_refused(run: Path, tmp_path: Path):
    with pytest.raises(ConfigurationError, match="needs the model"):
        attack_run(run)
    with pytest.raises(ConfigurationError, match="is about another model"):
        attack_run(run, model="mdeq-digits")
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(RunFolderError, match="holds no attack"):
        attack_run(run, model=MeansDEQ(), out=tmp_path)
