"""Names of an MDEQ's tensors in the public MDEQ and SRS repositories, and ours.

PAPER 4 names the repositories and the variants: prefixes of wrappers, and copies of the cell.
"""

from __future__ import annotations

from collections.abc import Iterator

from deqcert.models.mdeq_config import MDEQConfig

WRAPPERS = ("module.", "model.", "_orig_mod.")
"""Prefixes that DataParallel, loss wrappers and compilation put before every name."""

COPIES = ("fullstage_copy.", "deq.func.", "deq.func_copy.")
"""Further mentions of the cell ``fullstage`` by the first MDEQ code: a second copy for its backward
pass, and both once more under the solver that wraps them."""

COUNTER = "num_batches_tracked"
"""BatchNorm's count of training batches, which no computation here reads."""


def canonical_name(name: str) -> str:
    """Return a public name without wrappers, however many there are.

    >>> canonical_name("module.model.fullstage.branches.0.blocks.0.gn1.bias")
    'fullstage.branches.0.blocks.0.gn1.bias'
    """
    while name.startswith(WRAPPERS):
        name = name.split(".", 1)[1]
    return name


def public_names(config: MDEQConfig) -> dict[str, str]:
    """Return our name for each public name of an MDEQ with the bottleneck head.

    Every tensor that the published computation reads is there: neither BatchNorm's counters nor
    the standardisation, which the public code keeps outside its state dict.
    """
    return dict([*_stem(config), *_cell(config), *_head(config)])


def _stem(config: MDEQConfig) -> Iterator[tuple[str, str]]:
    layers = [("downsample.0", "downsample.1"), ("downsample.3", "downsample.4")]
    if config.has_injection_layer:
        layers.append(("stage0.0", "stage0.1"))
    for place, (conv, norm) in enumerate(layers):
        own = f"stem.layers.{2 * place}"
        yield f"{conv}.weight", f"{own}.conv.weight"
        yield from _batch_norm(norm, f"{own}.norm")


def _cell(config: MDEQConfig) -> Iterator[tuple[str, str]]:
    count = len(config.channels)
    for i in range(count):
        block, own = f"fullstage.branches.{i}.blocks.0", f"f.blocks.{i}"
        for k in (1, 2):
            yield from _weight_norm(f"{block}.conv{k}", f"{own}.conv{k}")
        for k in (1, 2, 3):
            yield from _affine(f"{block}.gn{k}", f"{own}.norm{k}")
    for into in range(count if count > 1 else 0):
        for source in range(count):
            yield from _path(source, into)
        after = f"fullstage.post_fuse_layers.{into}"
        yield from _weight_norm(f"{after}.conv", f"f.fusions.{into}.conv")
        if config.fusion_affine:
            yield from _affine(f"{after}.gnorm", f"f.fusions.{into}.norm")


def _path(source: int, into: int) -> Iterator[tuple[str, str]]:
    """Yield the names between two resolutions: one convolution up, or one per halving down."""
    public, own = f"fullstage.fuse_layers.{into}.{source}.net", f"f.fusions.{into}.paths.{source}"
    if source > into:
        yield f"{public}.conv.weight", f"{own}.0.weight"
        yield from _affine(f"{public}.gnorm", f"{own}.1")
    for step in range(into - source):
        yield f"{public}.{step}.conv.weight", f"{own}.{3 * step}.weight"
        yield from _affine(f"{public}.{step}.gnorm", f"{own}.{3 * step + 1}")


def _head(config: MDEQConfig) -> Iterator[tuple[str, str]]:
    parts = ("reduce", "conv", "expand")
    for i, (inner, outer) in enumerate(zip(config.channels, config.head_channels, strict=True)):
        block, own = f"incre_modules.{i}.0", f"head.bottlenecks.{i}"
        for k, part in enumerate(parts, start=1):
            yield f"{block}.conv{k}.weight", f"{own}.{part}.conv.weight"
            yield from _statistics(f"{block}.bn{k}", f"{own}.{part}.norm")
        if inner != outer * config.head_expansion:
            yield f"{block}.downsample.0.weight", f"{own}.shortcut.conv.weight"
            yield from _batch_norm(f"{block}.downsample.1", f"{own}.shortcut.norm")
    for i in range(len(config.channels) - 1):
        yield from _affine(f"downsamp_modules.{i}.0", f"head.downs.{i}.conv")
        yield from _batch_norm(f"downsamp_modules.{i}.1", f"head.downs.{i}.norm")
    yield from _affine("final_layer.0", "head.final.conv")
    yield from _batch_norm("final_layer.1", "head.final.norm")
    yield from _affine("classifier", "head.linear")


def _pairs(public: str, own: str, *names: str) -> Iterator[tuple[str, str]]:
    return ((f"{public}.{name}", f"{own}.{name}") for name in names)


def _affine(public: str, own: str) -> Iterator[tuple[str, str]]:
    return _pairs(public, own, "weight", "bias")


def _statistics(public: str, own: str) -> Iterator[tuple[str, str]]:
    return _pairs(public, own, "running_mean", "running_var")


def _batch_norm(public: str, own: str) -> Iterator[tuple[str, str]]:
    yield from _affine(public, own)
    yield from _statistics(public, own)


def _weight_norm(public: str, own: str) -> Iterator[tuple[str, str]]:
    return _pairs(public, own, "weight_g", "weight_v")
