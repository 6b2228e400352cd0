"""ImageNet's folder: small made-up folders everywhere, a sample of real images where it is."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from deqcert.data import FolderDataset, load_data
from deqcert.errors import DataError, UnknownNameError
from deqcert.models import from_classifier
from deqcert.results import RunFolder
from deqcert.runners import certify_dataset
from deqcert.smoothing import Certifier

IDS = ("n00000001", "n00000002", "n00000003")
GENERATOR = np.random.Generator(np.random.PCG64(3))


def noise(width: int, height: int) -> Image.Image:
    """Coarse random colours, so that JPEG files stay small and resizing matters."""
    coarse = GENERATOR.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.NEAREST)


def lay_out(folder: Path, ids: tuple[str, ...] = IDS, each: int = 2) -> Path:
    """Write class folders with `each` images; names do not follow the order of writing."""
    for number, name in enumerate(reversed(ids)):
        (folder / name).mkdir(parents=True)
        for image in reversed(range(each)):
            noise(260 + number, 240 + image).save(folder / name / f"{name}_{image}.JPEG")
    return folder


def load(folder: Path, split: str = "test") -> FolderDataset:
    found = load_data("imagenet", split=split, folder=folder)
    assert isinstance(found, FolderDataset)
    return found


@pytest.mark.parametrize("place", [".", "imagenet", "ILSVRC2012"])
def test_splits_are_found(tmp_path: Path, place: str) -> None:
    lay_out(tmp_path / place / "val")
    lay_out(tmp_path / place / "train", each=3)
    test, train = load(tmp_path), load(tmp_path, "train")
    assert (len(test), len(train)) == (6, 9)
    assert (test.split, train.split, load(tmp_path, "val").split) == ("test", "train", "test")
    assert load(tmp_path, "val").files == test.files
    assert repr(test) == "<FolderDataset imagenet test: 6 images of shape (3, 224, 224)>"


def test_a_folder_of_class_folders_itself(tmp_path: Path) -> None:
    assert len(load(lay_out(tmp_path / "some"))) == 6
    assert len(load(lay_out(tmp_path / "train"), "train")) == 6
    for folder, split in (("some", "train"), ("train", "test")):
        with pytest.raises(DataError, match=r"no folder .* of class folders in"):
            load(tmp_path / folder, split)


def test_classes_and_files_come_in_sorted_order(tmp_path: Path) -> None:
    lay_out(tmp_path / "val")
    for name in (".hidden", "notes.txt", "n00000001/.n00000001_9.JPEG", "n00000001/readme.txt"):
        (tmp_path / "val" / name).touch()
    (tmp_path / "val" / ".cache").mkdir()
    data = load(tmp_path)
    assert data.class_names == IDS
    assert data.files == tuple(f"{name}/{name}_{image}.JPEG" for name in IDS for image in (0, 1))
    assert data.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert data.labels.dtype == np.int64


def test_examples_batches_threads_and_copies_agree(tmp_path: Path) -> None:
    data = load(lay_out(tmp_path))
    order = [4, 0, 4, 5]
    images, labels = data.batch(order)
    assert images.dtype == torch.float32
    assert images.shape == (4, 3, 224, 224)
    assert labels.tolist() == [2, 0, 2, 2]
    for row, index in enumerate(order):
        example = data[index]
        assert (example.index, example.label) == (index, labels[row])
        assert torch.equal(example.image, images[row])
    copy = pickle.loads(pickle.dumps(data))
    object.__setattr__(copy, "workers", 3)
    assert torch.equal(copy.batch(order)[0], images)
    assert data.batch([])[0].shape == (0, 3, 224, 224)


@pytest.mark.parametrize(
    ("size", "resized", "corner"),
    [
        # Worked out by hand from torchvision's rules: short side 256, long side rounded down,
        # corner round((side - 224) / 2) with halves to even; (width, height) and (left, top).
        ((512, 512), (256, 256), (16, 16)),
        ((500, 375), (341, 256), (58, 16)),  # 117 / 2 = 58.5, to even
        ((375, 500), (256, 341), (16, 58)),
        ((499, 375), (340, 256), (58, 16)),  # 340.65 is rounded down
        ((136, 150), (256, 282), (16, 29)),
    ],
)
def test_standard_preprocessing(
    tmp_path: Path, size: tuple[int, int], resized: tuple[int, int], corner: tuple[int, int]
) -> None:
    picture = noise(*size)
    (tmp_path / IDS[0]).mkdir()
    picture.save(tmp_path / IDS[0] / "lossless.png")
    image = load(tmp_path)[0].image
    small = np.asarray(picture.resize(resized, Image.Resampling.BILINEAR))
    left, top = corner
    expected = small[top : top + 224, left : left + 224].transpose(2, 0, 1) / np.float32(255)
    np.testing.assert_array_equal(image.numpy(), expected)
    assert 0.0 <= image.min() < image.max() <= 1.0


def test_resizing_is_antialiased_bilinear(tmp_path: Path) -> None:
    """Against PyTorch's own filter: a plain bilinear one is up to half the range away."""
    stripes = np.zeros((1024, 1024, 3), np.uint8)
    stripes[:, ::2] = 255
    stripes[512:] = GENERATOR.integers(0, 256, (512, 1024, 3), dtype=np.uint8)
    (tmp_path / IDS[0]).mkdir()
    Image.fromarray(stripes).save(tmp_path / IDS[0] / "lossless.png")
    exact = torch.from_numpy(stripes).permute(2, 0, 1)[None].double()
    small = torch.nn.functional.interpolate(exact, (256, 256), mode="bilinear", antialias=True)
    difference = load(tmp_path)[0].image.double() * 255 - small[0, :, 16:240, 16:240]
    assert difference.abs().max() <= 1.0  # two passes, each rounded to bytes


def test_grey_palette_and_cmyk_become_rgb(tmp_path: Path) -> None:
    folder = tmp_path / IDS[0]
    folder.mkdir()
    picture = noise(256, 256)
    picture.convert("L").save(folder / "a.png")
    picture.convert("L").convert("RGB").save(folder / "b.png")
    picture.convert("CMYK").save(folder / "c.JPEG")
    Image.open(folder / "c.JPEG").convert("RGB").save(folder / "d.png")
    picture.quantize(16).save(folder / "e.png")
    Image.open(folder / "e.png").convert("RGB").save(folder / "f.png")
    images, _ = load(tmp_path).batch(range(6))
    assert torch.equal(images[0], images[1])
    assert torch.equal(images[2], images[3])
    assert torch.equal(images[4], images[5])
    assert torch.equal(images[0, 0], images[0, 2])
    assert not torch.equal(images[2, 0], images[2, 2])


def test_digest_follows_paths_sizes_labels_and_order(tmp_path: Path) -> None:
    digest = load(lay_out(tmp_path / "val")).digest
    moved = tmp_path / "elsewhere"
    (tmp_path / "val").rename(moved)
    assert load(moved).digest == digest
    digests = {digest}
    (tmp_path / "classes.txt").write_text("\n".join([*reversed(IDS)]))
    digests.add(load(moved).digest)
    (tmp_path / "classes.txt").unlink()
    (moved / IDS[0] / f"{IDS[0]}_0.JPEG").write_bytes(b"another size")
    digests.add(load(moved).digest)
    (moved / IDS[0] / f"{IDS[0]}_0.JPEG").unlink()
    digests.add(load(moved).digest)
    assert len(digests) == 4
    listed = load(moved)
    (moved / listed.files[0]).unlink()
    with pytest.raises(DataError, match=r"cannot read .*n00000001_1"):
        _ = listed.digest


@pytest.mark.parametrize("place", ["val/classes.txt", "classes.txt", "LOC_synset_mapping.txt"])
def test_a_list_fixes_number_order_and_names_of_classes(tmp_path: Path, place: str) -> None:
    lay_out(tmp_path / "val")
    lines = ["n00000009", "n00000003 coho, silver salmon", "", "n00000001 ", "n00000002 hen"]
    (tmp_path / place).write_text("\n".join(lines) + "\n")
    data = load(tmp_path)
    assert data.class_names == ("n00000009", "coho, silver salmon", "n00000001", "hen")
    assert data.files[0] == "n00000003/n00000003_0.JPEG"
    assert data.labels.tolist() == [1, 1, 2, 2, 3, 3]


def test_a_list_allows_other_folder_names(tmp_path: Path) -> None:
    lay_out(tmp_path / "val", ("hen", "cock"))
    (tmp_path / "classes.txt").write_text("cock\nhen\n")
    assert load(tmp_path).class_names == load(tmp_path / "val").class_names == ("cock", "hen")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            b"n00000001\nn00000002\n",
            r"n00000003' that is no class: it is not listed in .*classes\.txt",
        ),
        (b"n00000001\nn00000002\nn00000001\n", r"classes\.txt lists n00000001 twice"),
        (b" \n\n", r"classes\.txt is empty"),
        (b"\xff\xfe", r"cannot read .*classes\.txt"),
    ],
)
def test_lists_that_do_not_fit(tmp_path: Path, content: bytes, reason: str) -> None:
    lay_out(tmp_path / "val")
    (tmp_path / "classes.txt").write_bytes(content)
    with pytest.raises(DataError, match=reason) as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_foreign_file_of_the_lists_name_hides_no_error(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_bytes(b"\xff\xfe")
    (tmp_path / "data" / "mnist").mkdir(parents=True)
    with pytest.raises(DataError, match="no folder 'val' of class folders in"):
        load(tmp_path / "data")


def test_folders_that_are_no_data_set(tmp_path: Path) -> None:
    (tmp_path / "mnist").mkdir()
    with pytest.raises(DataError, match=r"no folder 'val' of class folders in .*--data-dir") as no:
        load(tmp_path)
    assert "\n" not in str(no.value)
    with pytest.raises(DataError, match="no folder 'train'"):
        load(tmp_path / "missing", "train")
    (tmp_path / "val").mkdir()
    with pytest.raises(DataError, match="val has no class folders"):
        load(tmp_path)
    (tmp_path / "val" / "cats").mkdir()
    with pytest.raises(DataError, match="folder 'cats' that is no class: expected WordNet ids"):
        load(tmp_path)
    with pytest.raises(UnknownNameError, match="known: test, train, val"):
        load(tmp_path, "validation")
    with pytest.raises(UnknownNameError, match="unknown split 'val'"):
        load_data("digits", split="val")


def test_a_class_without_images_is_named(tmp_path: Path) -> None:
    lay_out(tmp_path / "val")
    (tmp_path / "val" / "n00000004").mkdir()
    (tmp_path / "val" / "n00000004" / "n00000004.tar").touch()
    with pytest.raises(DataError, match=r"class folder .*n00000004 has no images"):
        load(tmp_path)


def test_classes_missing_from_one_split(tmp_path: Path) -> None:
    lay_out(tmp_path / "train")
    lay_out(tmp_path / "val", IDS[1:])
    for split in ("train", "test"):
        with pytest.raises(DataError, match=r"val lacks 1 of the classes beside it, such as n0+1;"):
            load(tmp_path, split)
    (tmp_path / "classes.txt").write_text("\n".join(IDS))
    assert load(tmp_path).labels.tolist() == [1, 1, 2, 2]
    assert load(tmp_path, "train").num_classes == 3


def damaged() -> dict[str, bytes]:
    import io

    def saved(kind: str) -> bytes:
        buffer = io.BytesIO()
        noise(300, 280).save(buffer, kind)
        return buffer.getvalue()

    jpeg, png = saved("JPEG"), saved("PNG")
    return {
        "empty": b"",
        "text": b"<html>404</html>",
        "header only": jpeg[:30],
        "half a JPEG": jpeg[: len(jpeg) // 2],
        "half a PNG": png[: len(png) // 2],
        "zeros inside": png[:60] + bytes(len(png) - 120) + png[-60:],
    }


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize(("kind", "content"), damaged().items())
def test_unreadable_images_are_named(
    tmp_path: Path, kind: str, content: bytes, workers: int
) -> None:
    data = load(lay_out(tmp_path))
    object.__setattr__(data, "workers", workers)
    (tmp_path / data.files[3]).write_bytes(content)
    with pytest.raises(DataError, match=r"n00000002_1\.JPEG") as caught:
        data.batch(range(6))
    assert "\n" not in str(caught.value), kind
    assert data.batch([0, 1, 2, 4])[0].shape[0] == 4


def test_missing_and_deep_images(tmp_path: Path) -> None:
    data = load(lay_out(tmp_path))
    (tmp_path / data.files[0]).unlink()
    with pytest.raises(DataError, match=r"cannot read .*n00000001_0\.JPEG: No such file"):
        data[0]
    Image.fromarray(np.zeros((300, 300), np.uint16)).save(tmp_path / data.files[0], "PNG")
    with pytest.raises(DataError, match="pixels of mode 'I;16', expected 8-bit"):
        data[0]


@pytest.mark.parametrize(
    "size",
    [
        (9_500, 9_500),  # Pillow itself only warns here
        (14_000, 14_000),
        (1, 400_000),  # small as a file, 26 billion pixels once resized
    ],
)
def test_decompression_bombs_are_refused(tmp_path: Path, size: tuple[int, int]) -> None:
    data = load(lay_out(tmp_path))
    Image.new("1", size).save(tmp_path / data.files[0], "PNG")
    for action in ("error", "ignore"):
        with warnings.catch_warnings():
            warnings.simplefilter(action, Image.DecompressionBombWarning)
            with pytest.raises(DataError, match=r"n00000001_0\.JPEG is too large to be decoded"):
                data[0]


def test_sample_of_real_images(originals: Path) -> None:
    folder = originals / "imagenet_sample"
    if not folder.is_dir():
        pytest.skip("needs imagenet_sample in DEQCERT_TEST_DATA")
    data = load(folder, "val")
    assert (len(data), data.num_classes) == (63, 63)
    assert data.class_names[:2] == ("n01440764", "n01560419")
    assert data.labels.tolist() == list(range(63))
    images, _ = data.batch(range(63))
    assert images.shape == (63, 3, 224, 224)
    # The channel statistics everybody standardises ImageNet with, within what 63 images allow.
    mean, std = images.mean(dim=(0, 2, 3)), images.std(dim=(0, 2, 3))
    np.testing.assert_allclose(mean, [0.485, 0.456, 0.406], atol=0.06)
    np.testing.assert_allclose(std, [0.229, 0.224, 0.225], atol=0.06)


def test_certifying_stops_at_a_damaged_image_and_goes_on_once_it_is_back(tmp_path: Path) -> None:
    data = load(lay_out(tmp_path / "val"))
    classifier = torch.nn.Sequential(
        torch.nn.AvgPool2d(112), torch.nn.Flatten(), torch.nn.Linear(12, 3)
    )
    model = from_classifier(classifier, num_classes=3, input_shape=(3, 224, 224))
    certifier = Certifier(model, sigma=0.5, n0=4, n=16, alpha=0.1, method="standard")
    out, damaged_file = tmp_path / "run", tmp_path / "val" / data.files[4]
    content = damaged_file.read_bytes()
    damaged_file.write_bytes(bytes(len(content)))  # same size: the digest does not see it
    with pytest.raises(DataError, match="n00000003_0"):
        certify_dataset(certifier, load(tmp_path), out=out, skip=2, seed=0)
    assert [record["index"] for record in RunFolder.open(out).records()] == [0, 2]
    damaged_file.write_bytes(content)
    run = certify_dataset(certifier, load(tmp_path), out=out, skip=2)
    assert [(record["index"], record["label"]) for record in run.records()] == [
        (0, 0),
        (2, 1),
        (4, 2),
    ]
