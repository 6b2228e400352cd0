"""Public checkpoints: the same function, whatever form they come in, and nothing else is taken."""

from __future__ import annotations

import copy
import hashlib
import pickle
from collections import OrderedDict

import pytest
import torch

from deqcert.errors import CheckpointError
from deqcert.models import (
    ARCHITECTURES,
    build,
    convert_checkpoint,
    import_checkpoint,
    inference_copy,
    load_model,
    public_architectures,
    weights_digest,
)
from deqcert.models.public_names import public_names
from deqcert.solvers import SolverSpec, solve
from tests.models.public_mdeq import CONFIGURATIONS, Network, Public, random_weights

SMALL = CONFIGURATIONS["mdeq-small"]


@pytest.fixture(scope="module")
def weights():
    return random_weights(SMALL)


@pytest.fixture(scope="module")
def small(weights, tmp_path_factory):
    """The imported mdeq-small."""
    path = tmp_path_factory.mktemp("public") / "model_best.pth.tar"
    torch.save(weights, path)
    return import_checkpoint(path, architecture="mdeq-small")[0]


def _imported(content, tmp_path, architecture="mdeq-small", **options):
    path = tmp_path / "checkpoint.pth.tar"
    torch.save(content, path, **options)
    return import_checkpoint(path, architecture=architecture)


@torch.no_grad()
def _iterate(model, x, solver, steps):
    spec = SolverSpec(solver, steps, memory=steps if solver == "broyden" else 0)
    injection = model.inject(x)
    state = solve(model.cell, model.initial_state(injection), injection, spec=spec).state
    return model.classify(state), state


def _difference(a, b):
    return float(((a.double() - b).flatten(1).norm(dim=1) / b.flatten(1).norm(dim=1)).max())


@pytest.mark.parametrize("solver", ["picard", "anderson", "broyden"])
@pytest.mark.parametrize("steps", [1, 2, 8, 14])
def test_the_same_iterates_and_logits_as_the_published_description(small, weights, solver, steps):
    x = torch.rand(3, 3, 32, 32)
    expected, expected_state = Network(weights, SMALL).logits(x, solver, steps)
    logits, state = _iterate(copy.deepcopy(small).double(), x.double(), solver, steps)
    # Pixel means and deviations are float32 numbers here, and exact decimals there.
    assert _difference(logits, expected) < 1e-5
    for ours, theirs in zip(state, expected_state, strict=True):
        assert _difference(ours, theirs) < 1e-4
    assert _difference(_iterate(small, x, solver, steps)[0], expected) < 1e-4
    assert _difference(_iterate(inference_copy(small), x, solver, steps)[0], expected) < 1e-4


@pytest.mark.parametrize(
    ("architecture", "solver", "steps"),
    [
        ("mdeq-large", "anderson", 3),
        ("mdeq-small-imagenet", "broyden", 2),
        ("mdeq-small-imagenet-2020", "picard", 2),
    ],
)
def test_all_public_architectures(architecture, solver, steps, tmp_path):
    shape = CONFIGURATIONS[architecture]
    weights = random_weights(shape)
    model, report = _imported({"state_dict": weights}, tmp_path, architecture)
    x = torch.rand(1, 3, shape.size, shape.size)
    expected, _ = Network(weights, shape).logits(x, solver, steps)
    assert _difference(_iterate(inference_copy(model), x, solver, steps)[0], expected) < 1e-4
    assert report.notes == ()
    assert architecture in public_architectures()


def test_every_number_but_the_counters_is_taken_over():
    names = public_names(ARCHITECTURES["mdeq-large"])
    with torch.device("meta"):
        own = build("mdeq-large").state_dict()
    left = own.keys() - set(names.values())
    assert len(set(names.values())) == len(names)
    assert {name.rpartition(".")[2] for name in left} == {"num_batches_tracked", "mean", "std"}
    made = random_weights(CONFIGURATIONS["mdeq-large"])
    assert {n for n in made if not n.endswith("num_batches_tracked")} == set(names)


def _training_checkpoint(weights):
    parameters = [torch.nn.Parameter(weights["classifier.weight"].clone())]
    optimizer = torch.optim.Adam(parameters)
    parameters[0].grad = torch.ones_like(parameters[0])
    optimizer.step()
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    return {
        "epoch": 3,
        "model": "mdeq",
        "state_dict": OrderedDict((f"module.{k}", v) for k, v in weights.items()),
        "perf": torch.tensor(55.5),
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": schedule.state_dict(),
    }


def _first_code(weights):
    """The cell listed four times, one copy of it out of date and without weight norm."""
    cell = {k.removeprefix("fullstage."): v for k, v in weights.items() if k.startswith("fulls")}
    old = {k.replace("weight_v", "weight"): v + 1 for k, v in cell.items() if "weight_g" not in k}
    copies = {f"fullstage_copy.{k}": v for k, v in old.items()}
    copies |= {f"deq.func.{k}": v for k, v in cell.items()}
    copies |= {f"deq.func_copy.{k}": v for k, v in old.items()}
    return {**weights, **copies}


FORMS = {
    "DataParallel": lambda w: {f"module.{k}": v for k, v in w.items()},
    "loss wrapper": lambda w: {f"module.model.{k}": v for k, v in w.items()},
    "model.": lambda w: {f"model.{k}": v for k, v in w.items()},
    "compiled": lambda w: {f"_orig_mod.{k}": v for k, v in w.items()},
    "parameters": lambda w: {
        k: torch.nn.Parameter(v) if v.is_floating_point() else v for k, v in w.items()
    },
    "training checkpoint": _training_checkpoint,
    "model_state": lambda w: {"model_state": w, "optimizer_state": {}, "step": 7},
    "nested": lambda w: {"model": {"state_dict": w}},
    "first code": _first_code,
    "no counters": lambda w: {k: v for k, v in w.items() if "num_batches" not in k},
    "float64": lambda w: {k: v.double() if v.is_floating_point() else v for k, v in w.items()},
    "other entries": lambda w: {**w, "_extra_state": None, "version": 2},
}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("form", sorted(FORMS))
def test_every_form_gives_the_same_weights(small, weights, form, zipped, tmp_path):
    content = FORMS[form](weights)
    model, report = _imported(content, tmp_path, _use_new_zipfile_serialization=zipped)
    assert report.weights_digest == weights_digest(model) == weights_digest(small)
    assert not model.training
    assert report.parameters == 249_883
    assert report.tensors == 134


def test_reports_tell_what_was_left_out(weights, tmp_path):
    _, report = _imported(_training_checkpoint(_first_code(weights)), tmp_path)
    assert report.ignored == {
        "entries of training state (epoch, lr_scheduler, model, optimizer, perf)": 5,
        "num_batches_tracked counters": 18,
        "tensors in copies of the cell": sum(
            3 if "weight_g" not in k else 1 for k in weights if k.startswith("fullstage.")
        ),
    }
    _, report = _imported(FORMS["float64"](weights), tmp_path)
    assert report.notes == ("stored as float64, now float32",)
    _, report = _imported(FORMS["other entries"](weights), tmp_path)
    assert report.ignored["entries that are no tensors"] == 2


def test_weights_without_weight_norm_give_the_same_function(small, weights, tmp_path):
    plain = {k: v for k, v in weights.items() if not k.endswith(("_g", "_v"))}
    for name in [k.removesuffix("_v") for k in weights if k.endswith("_v")]:
        v = weights[f"{name}_v"].double()
        norm = v.square().sum((1, 2, 3), keepdim=True).sqrt()
        plain[name] = (weights[f"{name}_g"] * v / norm).float()
    plain["fullstage.branches.0.blocks.0.conv1.weight"][3] = 0.0
    model, report = _imported(plain, tmp_path)
    assert report.notes == ("9 weights without weight norm, split into norm and direction",)
    x = torch.rand(2, 3, 32, 32)
    expected, _ = Network(plain, SMALL).logits(x, "picard", 3)
    assert _difference(_iterate(model, x, "picard", 3)[0], expected) < 1e-5


def test_half_precision_is_widened(weights, tmp_path):
    half = {k: v.half() if v.is_floating_point() else v for k, v in weights.items()}
    model, report = _imported(half, tmp_path)
    assert report.notes == ("stored as float16, now float32",)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    x = torch.rand(2, 3, 32, 32)
    expected, _ = Network(half, SMALL).logits(x, "picard", 2)
    assert _difference(_iterate(model, x, "picard", 2)[0], expected) < 1e-5


def test_scale_and_shift_after_fusion_are_kept(tmp_path):
    shape = Public((8, 16, 32), (7, 14, 28), 200, fusion_affine=True)
    weights = random_weights(shape)
    model, report = _imported(_first_code(weights), tmp_path)
    assert report.notes == ("with scale and shift after fusion, as in the file",)
    x = torch.rand(2, 3, 32, 32)
    expected, _ = Network(weights, shape).logits(x, "anderson", 4)
    assert _difference(_iterate(model, x, "anderson", 4)[0], expected) < 1e-4
    again, _ = _imported(
        {k: v for k, v in weights.items() if "post" not in k or "gnorm" not in k}, tmp_path
    )
    assert _difference(_iterate(again, x, "anderson", 4)[0], expected) > 1e-2


def test_folding_is_exact_to_rounding(small):
    x = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    double = copy.deepcopy(small).double()
    folded = inference_copy(double)
    assert not any("weight_g" in name or "norm.running" in name for name in folded.state_dict())
    expected = _iterate(double, x, "picard", 4)[0]
    assert _difference(_iterate(folded, x, "picard", 4)[0], expected) < 1e-13
    assert _difference(_iterate(inference_copy(small), x.float(), "picard", 4)[0], expected) < 2e-6


def test_copies_pickles_state_dicts_and_moves_keep_everything(small, tmp_path):
    x = torch.rand(2, 3, 32, 32)
    digest, expected = weights_digest(small), _iterate(small, x, "anderson", 5)[0]
    fresh, _ = _imported(random_weights(SMALL, seed=1), tmp_path)
    assert weights_digest(fresh) != digest
    fresh.load_state_dict(small.state_dict())
    moved = copy.deepcopy(small).to("meta").to_empty(device="cpu")
    moved.load_state_dict(small.state_dict())
    for model in (
        copy.deepcopy(small),
        pickle.loads(pickle.dumps(small)),
        copy.deepcopy(small).double().float(),
        copy.deepcopy(small).to("cpu"),
        copy.deepcopy(small).share_memory(),
        fresh,
        moved,
    ):
        assert weights_digest(model) == digest
        assert torch.equal(_iterate(model, x, "anderson", 5)[0], expected)
    with torch.no_grad():
        changed = copy.deepcopy(small)
        changed.f.blocks[0].conv1.weight_g.mul_(2.0)
    assert weights_digest(small) == digest
    assert not torch.equal(_iterate(changed, x, "anderson", 5)[0], expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_device_moves_on_a_gpu(small):
    x = torch.rand(2, 3, 32, 32)
    expected = _iterate(small, x, "picard", 3)[0].double()
    there = copy.deepcopy(small).to("cuda")
    assert _difference(_iterate(there, x.cuda(), "picard", 3)[0].cpu(), expected) < 1e-3
    assert weights_digest(there) == weights_digest(small)
    assert weights_digest(there.cpu()) == weights_digest(small)


def test_conversion_writes_a_checkpoint_that_says_where_it_came_from(small, weights, tmp_path):
    path = tmp_path / "noise50.pth.tar"
    torch.save(weights, path)
    report = convert_checkpoint(path, tmp_path / "out", architecture="mdeq-small", sigma=0.5)
    found = load_model(tmp_path / "out")
    assert weights_digest(found) == weights_digest(small) == report.weights_digest
    assert found.card == {
        "architecture": "mdeq-small",
        "imported_from": {"file": "noise50.pth.tar", "sha256": report.sha256},
        "notes": [],
        "sigma": 0.5,
    }
    assert report.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert small.card is not None
    assert "sigma" not in small.card


def test_other_weights_are_never_overwritten(weights, tmp_path):
    path, out = tmp_path / "a.pth", tmp_path / "out"
    torch.save(weights, path)
    first = convert_checkpoint(path, out, architecture="mdeq-small")
    assert convert_checkpoint(path, out, architecture="mdeq-small") == first
    torch.save({**weights, "classifier.bias": torch.zeros(10)}, path)
    with pytest.raises(CheckpointError, match="holds other weights already"):
        convert_checkpoint(path, out, architecture="mdeq-small")
    assert weights_digest(load_model(out)) == first.weights_digest
