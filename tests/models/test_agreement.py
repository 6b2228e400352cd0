"""What a compiler made for a GPU is looked at before it is used, and left out if it is wrong."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from deqcert.errors import ConfigurationError, PerformanceWarning
from deqcert.models import agreement, build, fused_cell, inference_copy
from deqcert.models.fast_part import FastPart
from deqcert.models.fused_cell import FusedCell
from deqcert.models.fused_ends import FusedHead, FusedStem
from deqcert.models.inference import lacks_fast_parts
from deqcert.models.mdeq_cell import MDEQCell
from deqcert.smoothing.classifier import ReferenceClassifier
from deqcert.solvers import SolverSpec
from tests.models.made import with_random_weights

pytest.importorskip("numba")
from deqcert.models.cpu_kernels import CpuKernels

SPEC = SolverSpec.parse("picard:2")


class Wrong(CpuKernels):
    """One operation left out: that of the last normalisation."""

    def norm(self, x, out, norm):
        out.copy_(x)


class WrongAtTheEdge(CpuKernels):
    """A corner that takes from its neighbour: a fifteenth of the whole by its norm."""

    def norm(self, x, out, norm):
        super().norm(x, out, norm)
        out[:, :, 0, 0] = out[:, :, 0, 1]


class Failing(CpuKernels):
    def fuse(self, *arguments):
        raise OSError("Failed to find C compiler. Please specify via CC environment variable.\n...")


class NotANumber(CpuKernels):
    def norm_relu(self, x, norm):
        x.fill_(torch.nan)


BROKEN = [
    (Wrong, "the two differ by"),
    (WrongAtTheEdge, "differ by"),
    (Failing, "Failed to find C compiler"),
    (NotANumber, "nan"),
]


@pytest.fixture
def looked_at(monkeypatch):
    """Kernels to build fast cells with, taken for those of a GPU: they are looked at."""

    def use(kernels):
        monkeypatch.setattr(fused_cell, "_kernels_for", lambda cell, device: kernels())
        monkeypatch.setattr(agreement, "_tested", lambda part: not isinstance(part, FusedCell))

    return use


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_agrees_is_kept(looked_at, dtype):
    looked_at(CpuKernels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = inference_copy(build("mdeq-digits"), dtype=dtype)
    assert isinstance(model.f, FusedCell)
    assert not lacks_fast_parts(model)


def test_half_precision_is_compared_with_single():
    """A sum of which rounding leaves nothing: the plain part is wrong, and so is what equals it."""

    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([1.0, -1.0]))

        def forward(self, x):
            return ((x * self.weight[:, None]) + 256.0).sum(0) - 512.0

    class Fast(FastPart):
        def forward(self, x):
            return self.plain(x) if self.rounding else (x[0].float() - x[1].float()).to(x.dtype)

    part = Fast(Sum().bfloat16(), torch.bfloat16)
    x = torch.tensor([[3.3, 2.2, 9.1], [1.2, 7.7, 3.1]], dtype=torch.bfloat16)
    part.rounding = False
    assert agreement.what_is_wrong(part, [(x,)]) == ""
    part.rounding = True
    assert "differ by" in agreement.what_is_wrong(part, [(x,)])


@pytest.mark.parametrize("name", ["stem", "head"])
def test_each_part_is_looked_at_by_itself(monkeypatch, name):
    monkeypatch.setattr(agreement, "_tested", lambda part: False)
    kind = {"stem": FusedStem, "head": FusedHead}[name]
    usual = kind.forward
    monkeypatch.setattr(kind, "forward", lambda self, x: 1.1 * usual(self, x))
    with pytest.warns(
        PerformanceWarning, match=f"{kind.__name__} for this GPU is not used"
    ) as all_:
        model = inference_copy(build("mdeq-small"))
    assert len(all_) == 1
    assert isinstance(model.f, FusedCell)
    assert isinstance(model.stem, FusedStem) == (name != "stem")
    assert isinstance(model.head, FusedHead) == (name != "head")
    assert lacks_fast_parts(model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("kernels", "why"), BROKEN)
def test_what_is_wrong_is_left_out(looked_at, kernels, why, dtype):
    looked_at(kernels)
    with pytest.warns(PerformanceWarning, match=why):
        model = inference_copy(build("mdeq-digits"), dtype=dtype)
    assert type(model.f) is MDEQCell
    assert lacks_fast_parts(model)


class Misreading(CpuKernels):
    """The fault of an assembler that this look met on a GPU (docs/engine.md), in one layer."""

    def conv(self, conv, dtype):
        usual = super().conv(conv, dtype)
        if (conv.in_channels, conv.out_channels, conv.stride) != (32, 64, (2, 2)):
            return usual
        tap = conv.weight.detach()[:, :, 1, 2].to(dtype)

        class Misread:
            channels = usual.channels

            def __call__(self, x):  # (rows, 32, 32, 32)
                out, lines = usual(x), x.permute(0, 2, 3, 1).flatten(0, 1)
                above = lines.roll(1, 0).view(len(x), 32, 32, 32).permute(0, 3, 1, 2)
                wrong = (above - x)[:, :, ::2, 1::2]
                places = [0, 1, 8, 9]  # lines of the result, a quarter of them
                out[:, :, places] += torch.einsum("nchw,oc->nohw", wrong, tap)[:, :, places]
                return out

        return Misread()


def test_a_place_of_a_window_that_is_read_a_line_too_high_is_seen(looked_at):
    model = with_random_weights("mdeq-large")
    looked_at(CpuKernels)
    assert isinstance(inference_copy(model, dtype=torch.bfloat16).f, FusedCell)
    looked_at(Misreading)
    with pytest.warns(PerformanceWarning, match="the two differ by"):
        broken = inference_copy(model, dtype=torch.bfloat16)
    assert type(broken.f) is MDEQCell


def test_bfloat16_is_then_refused_and_float32_plain(looked_at):
    looked_at(Failing)
    model = build("mdeq-digits").eval()
    with pytest.warns(PerformanceWarning), pytest.raises(ConfigurationError, match="fast cell"):
        ReferenceClassifier(model, SPEC, sigma=0.5, precision="bfloat16")
    with pytest.warns(PerformanceWarning):
        classifier = ReferenceClassifier(model, SPEC, sigma=0.5)
    assert type(classifier.model.f) is MDEQCell


def test_the_margin_covers_what_is_within_rounding_of_the_plain_cell(looked_at):
    class Rounding(CpuKernels):
        """Errs by far more than rounding, and by far less than wrong code."""

        def norm(self, x, out, norm):
            super().norm(x, out, norm)
            out.mul_(1.0 + 2.0**-12)

    model = build("mdeq-digits").eval()
    looked_at(CpuKernels)
    usual = ReferenceClassifier(model, SPEC, sigma=0.5).margin
    looked_at(Rounding)
    assert ReferenceClassifier(model, SPEC, sigma=0.5).margin >= 16 * usual
