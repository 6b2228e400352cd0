"""Thumbnails in the run folder: there for the report, harmless when they are not."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import deqcert as dc
from deqcert.results import RunFolder
from deqcert.results.thumbnails import THUMBNAILS, read_thumbnails
from deqcert.runners.thumbnails import LARGEST, encode_thumbnail, with_thumbnails
from tests.results.made import certificate


def certify(out: Path, *, limit: int) -> RunFolder:
    model = dc.load_model("mdeq-digits")
    certifier = dc.Certifier(
        model, sigma=0.5, n=200, n0=50, method="standard", reference="picard:1"
    )
    data = dc.load_data("digits", split="test")
    return dc.certify_dataset(certifier, data, out=out, limit=limit, seed=0)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return certify(tmp_path_factory.mktemp("runs") / "run", limit=3)


def decoded(text: str) -> np.ndarray:  # (H, W, 3)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


def test_every_record_has_the_picture_of_its_image(run: RunFolder) -> None:
    found = read_thumbnails(run.path)
    assert set(found) == run.done == {0, 1, 2}
    data = dc.load_data("digits", split="test")
    for index, text in found.items():
        pixels = (data[index].image[0] * 255).round().to(torch.uint8).numpy()
        np.testing.assert_array_equal(decoded(text), np.repeat(pixels[..., None], 3, axis=2))


def test_resuming_fills_what_is_missing_and_touches_no_record(
    run: RunFolder, tmp_path: Path
) -> None:
    import shutil

    folder = Path(shutil.copytree(run.path, tmp_path / "run"))
    file = folder / THUMBNAILS
    whole = file.read_text().splitlines(keepends=True)
    records = (folder / "records.jsonl").read_bytes()
    file.write_text(whole[0] + whole[1][:20])  # torn by a kill
    certify(folder, limit=3)
    assert read_thumbnails(folder) == read_thumbnails(run.path)
    file.unlink()
    certify(folder, limit=3)
    assert read_thumbnails(folder) == read_thumbnails(run.path)
    assert (folder / "records.jsonl").read_bytes() == records


def test_a_run_goes_on_without_pictures(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    certify(folder, limit=1)
    (folder / THUMBNAILS).unlink()
    (folder / THUMBNAILS).mkdir()  # cannot be opened as a file
    assert certify(folder, limit=2).done == {0, 1}
    assert read_thumbnails(folder) == {}


def test_failing_pictures_end_pictures_alone(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("deqcert.runners.thumbnails.encode_thumbnail", full)
    data = dc.load_data("digits", split="test")
    certificates = [certificate(5), certificate(6)]
    assert list(with_thumbnails(certificates, data, run)) == certificates
    assert set(read_thumbnails(run.path)) == {0, 1, 2}


def smooth(height: int, width: int) -> torch.Tensor:  # (3, H, W)
    """An image of few frequencies and some grain, as photographs are."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 6, 6, generator=generator)
    image = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")[0]
    return (image + 0.03 * torch.randn(3, height, width, generator=generator)).clamp(0, 1)


def test_photographs_are_small_and_alike() -> None:
    image = smooth(32, 32)
    content = encode_thumbnail(image)
    assert len(content) < 500
    shown = decoded(base64.b64encode(content).decode()).astype(float).transpose(2, 0, 1)
    assert np.abs(shown - 255 * image.numpy()).mean() < 12


@pytest.mark.parametrize("shape", [(224, 224), (100, 300), (49, 20)])
def test_large_images_are_scaled_down_in_proportion(shape: tuple[int, int]) -> None:
    content = encode_thumbnail(smooth(*shape))
    height, width, _ = decoded(base64.b64encode(content).decode()).shape
    assert max(height, width) <= LARGEST
    assert width / height == pytest.approx(shape[1] / shape[0], rel=0.1)
    assert len(content) < 1200


@pytest.mark.parametrize("channels", [1, 3])
def test_tiny_images_are_kept_to_the_bit(channels: int) -> None:
    image = torch.rand(channels, 8, 8, generator=torch.Generator().manual_seed(0))
    shown = decoded(base64.b64encode(encode_thumbnail(image)).decode())
    wanted = (image * 255).round().to(torch.uint8).numpy().transpose(1, 2, 0)
    np.testing.assert_array_equal(shown, np.broadcast_to(wanted, shown.shape))
