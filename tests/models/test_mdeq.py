"""MDEQ against its published description."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from deqcert.errors import ConfigurationError, UnknownNameError
from deqcert.models import ARCHITECTURES, MDEQ, MDEQConfig, build
from deqcert.models.mdeq_cell import Fusion, ResidualBlock
from tests.models.made import tiny_mdeq

PUBLISHED = {  # name: parameters, state size (PAPER 4)
    "mdeq-small": (249_883, 14_336),
    "mdeq-large": (11_097_438, 61_440),
    "mdeq-small-imagenet": (18_613_496, 188_160),
}


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_published_sizes_are_exact(name):
    with torch.device("meta"):
        model = build(name)
    parameters, state = PUBLISHED[name]
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert ARCHITECTURES[name].state_size == state


def test_state_shapes_are_those_the_cell_sees():
    for resolutions in (1, 2, 3):
        for strides in ((1, 1), (2, 1), (2, 2)):
            model = tiny_mdeq(resolutions, stem_strides=strides).eval()
            injection = model.inject(torch.rand(2, 2, 9, 7))
            state = model.initial_state(injection)
            assert injection[0].shape[1:] == state[0].shape[1:]
            assert [tuple(z.shape[1:]) for z in state] == model.config.state_shapes
            assert model.classify(model.cell(state, injection)).shape == (2, 3)


def test_residual_block_is_the_published_formula():
    block = ResidualBlock(4, expansion=3, groups=2).double()
    z, u, mask = (torch.randn(2, 4, 5, 5).double() for _ in range(3))
    mask = (mask[:, :, :1, :1] > 0).double() / 0.5
    inner = torch.relu(block.norm1(block.conv1(z)))
    out = block.norm2(block.conv2(inner) * mask + u)
    expected = block.norm3(torch.relu(out + z))
    torch.testing.assert_close(block(z, u, mask), expected)
    assert block.conv1.weight.shape == (12, 4, 3, 3)


def test_fusion_paths_have_the_published_layers():
    fusion = Fusion((4, 8, 16), 2, groups=2)  # into the lowest of three resolutions
    kinds = [[type(part).__name__ for part in path] for path in fusion.paths[:2]]
    assert kinds == [
        ["Conv2d", "GroupNorm", "ReLU", "Conv2d", "GroupNorm"],
        ["Conv2d", "GroupNorm"],
    ]
    first, last = fusion.paths[0][0], fusion.paths[0][3]
    assert (first.in_channels, first.out_channels, first.stride) == (4, 4, (2, 2))
    assert (last.in_channels, last.out_channels, last.stride) == (4, 16, (2, 2))
    up = Fusion((4, 8, 16), 0, groups=2).paths[2]
    assert (up[0].kernel_size, up[0].stride) == ((1, 1), (1, 1))
    assert fusion.norm.num_groups == 1
    assert not fusion.norm.affine


def test_upsampling_copies_nearest_pixels():
    fusion = Fusion((2, 2), 0, groups=1).double()
    high, low = torch.zeros(1, 2, 4, 4).double(), torch.randn(1, 2, 2, 2).double()
    up = fusion.paths[1](low).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    expected = fusion.norm(fusion.conv(torch.relu(high + up)))
    torch.testing.assert_close(fusion([high, low]), expected)


def test_injection_enters_at_the_highest_resolution_alone():
    model = tiny_mdeq(3).eval()
    injection = model.inject(torch.rand(1, 2, 9, 7))
    blocks = []
    for block in model.f.blocks:
        block.register_forward_hook(lambda _m, _i, out: blocks.append(out))
    state = model.initial_state(injection)
    model.cell(state, injection)
    model.cell(state, (injection[0] + 1.0 + torch.rand_like(injection[0]), None))
    assert not torch.equal(blocks[0], blocks[3])
    assert torch.equal(blocks[1], blocks[4])
    assert torch.equal(blocks[2], blocks[5])


def test_stem_has_a_third_convolution_unless_small_and_unstrided():
    count = lambda m: sum(isinstance(p, nn.Conv2d) for p in m.stem.modules())  # noqa: E731
    assert [count(tiny_mdeq(n)) for n in (1, 2, 3)] == [2, 2, 3]
    assert count(tiny_mdeq(2, stem_strides=(2, 1))) == 3


def test_images_are_standardised_inside():
    model = tiny_mdeq(1).eval()
    mean = torch.tensor([0.4, 0.5]).view(1, 2, 1, 1).expand(1, 2, 9, 7)
    seen = []
    model.stem.layers.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    model.inject(mean)
    model.inject(mean + torch.tensor([0.25, 0.5]).view(1, 2, 1, 1))
    torch.testing.assert_close(seen[0], torch.zeros(1, 2, 9, 7))
    torch.testing.assert_close(seen[1], torch.ones(1, 2, 9, 7))


def test_dropout_masks_whole_channels_once_per_solve_while_training():
    model = tiny_mdeq(2, dropout=0.3).train()
    x = torch.rand(200, 2, 9, 7)
    injection = model.inject(x)
    masks = injection[1]
    assert [tuple(mask.shape) for mask in masks] == [(200, 4, 1, 1), (200, 8, 1, 1)]
    values = torch.cat([mask.flatten() for mask in masks])
    kept = values > 0
    assert 0.66 < float(kept.float().mean()) < 0.74  # 2,400 draws: standard error 0.009
    torch.testing.assert_close(values[kept], torch.full_like(values[kept], 1 / 0.7))
    state = model.cell(model.initial_state(injection), injection)
    again = model.cell(model.initial_state(injection), injection)
    assert all(torch.equal(a, b) for a, b in zip(state, again, strict=True))
    assert not torch.equal(model.inject(x)[1][0], masks[0])
    assert model.eval().inject(x)[1] is None
    assert tiny_mdeq(2).train().inject(x)[1] is None


def test_bottleneck_head_is_the_published_one():
    head = tiny_mdeq(3).head
    affine = [
        (part.reduce.norm.affine, part.conv.norm.affine, part.expand.norm.affine,
         part.shortcut.norm.affine)
        for part in head.bottlenecks
    ]  # fmt: skip
    assert affine == [(False, False, False, True)] * 3
    assert all(down.conv.bias is not None and down.conv.stride == (2, 2) for down in head.downs)
    assert head.final.conv.bias is not None
    assert head.linear.in_features == 6


def test_linear_heads_see_the_whole_state():
    for head, width in (("pool", 12), ("flatten", 4 * 63 + 8 * 20)):
        model = tiny_mdeq(2, head=head)
        assert model.head.linear.in_features == width


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": ()}, "at least one resolution"),
        ({"channels": (4, 7)}, "multiples of groups = 2, but got 7"),
        ({"stem_strides": (3, 1)}, r"stem_strides must be two values of 1 or 2, but got \(3, 1\)"),
        ({"expansion": 0}, "expansion must be at least 1, but got 0"),
        ({"head": "bottleneck"}, "head_channels must have one value per resolution"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), but got 1.0"),
        ({"mean": (0.1, 0.2, 0.3)}, "mean must have 1 value or one per channel"),
        ({"std": (0.0,)}, "std must be above 0"),
        ({"init_std": 0.0}, "init_std must be above 0"),
        ({"num_classes": 1}, "num_classes must be at least 2, but got 1"),
        ({"input_shape": (2, 0, 7)}, "input_shape must be three positive sizes"),
        ({"channels": (4,) * 6}, "6 resolutions are too many"),
    ],
)
def test_impossible_configurations_are_refused(changes, message):
    with pytest.raises(ConfigurationError, match=message):
        tiny_mdeq(2, **{"head_channels": (), **changes})


def test_unknown_settings_are_never_swallowed():
    with pytest.raises(UnknownNameError, match="unknown MDEQ setting 'dropuot'; did you mean 'dro"):
        build("mdeq-digits", dropuot=0.1)
    with pytest.raises(UnknownNameError, match="did you mean 'pool'"):
        build("mdeq-digits", head="pol")
    with pytest.raises(ConfigurationError, match="needs input_shape, num_classes, channels"):
        build("mdeq")


def test_configuration_survives_json_lists():
    config = ARCHITECTURES["mdeq-large"]
    values = {k: list(v) if isinstance(v, tuple) else v for k, v in vars(config).items()}
    assert MDEQConfig.from_dict(values) == config
    assert isinstance(
        MDEQ(MDEQConfig.from_dict({**values, "channels": [8]} | {"head": "pool"})).f.blocks,
        nn.ModuleList,
    )
