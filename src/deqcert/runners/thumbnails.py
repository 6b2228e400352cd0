"""Thumbnails of certified images, kept in the run folder for the report.

They are an ornament: whatever goes wrong with them ends them, never the run.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Iterator
from typing import IO

import torch
from PIL import Image, features
from torch import Tensor

from deqcert.certificate import AnyCertificate
from deqcert.data import Dataset
from deqcert.errors import DeqcertError
from deqcert.results import RunFolder
from deqcert.results.thumbnails import THUMBNAILS, each_thumbnail, thumbnail_line

LARGEST = 48
"""Pixels of the longer side; larger images are scaled down."""
LOSSLESS = 16
"""Images up to this size are kept to the bit: they are smaller so, and lossy ones would blur."""
QUALITY = 50


def with_thumbnails(
    certified: Iterable[AnyCertificate], data: Dataset, run: RunFolder
) -> Iterator[AnyCertificate]:
    """Yield what `certified` yields, appending the thumbnail of each image to the run folder.

    Images that have a record and no thumbnail (an older or interrupted run) get theirs at the end.
    """
    with contextlib.ExitStack() as stack:
        stream = _open(run, stack)
        for certificate in certified:
            yield certificate  # its record is written before its picture
            stream = _append(stream, data, certificate.index)
        # Last, and their numbers alone in memory: pictures delay no certificate.
        for index in sorted(run.done - {index for index, _ in each_thumbnail(run.path)}):
            stream = _append(stream, data, index)


def encode_thumbnail(
    image: Tensor,  # (C, H, W) in [0, 1], one channel or three
) -> bytes:
    """Return `image` as WebP: about 400 bytes for 32 x 32 photographs."""
    rounded = (image.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    channels = rounded[0] if rounded.shape[0] == 1 else rounded[:3].transpose(1, 2, 0)
    picture = Image.fromarray(channels).convert("RGB")
    picture.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    tiny = max(picture.size) <= LOSSLESS
    picture.save(stream, format="WEBP", lossless=tiny, quality=100 if tiny else QUALITY, method=4)
    return stream.getvalue()


def _open(run: RunFolder, stack: contextlib.ExitStack) -> IO[bytes] | None:
    """Open the file to append, ending a torn last line; None where there can be no thumbnails."""
    if not features.check("webp"):
        return None
    try:
        stream = stack.enter_context((run.path / THUMBNAILS).open("ab+"))
        if stream.tell() > 0:
            stream.seek(-1, io.SEEK_END)
            if stream.read(1) != b"\n":
                stream.write(b"\n")
    except OSError:
        return None
    return stream


def _append(stream: IO[bytes] | None, data: Dataset, index: int) -> IO[bytes] | None:
    """Append one thumbnail; return None, for no more of them, where that fails."""
    if stream is None:
        return None
    try:
        stream.write(thumbnail_line(index, encode_thumbnail(data[index].image)).encode() + b"\n")
        stream.flush()
    except (OSError, ValueError, DeqcertError):
        # The disk is full, the image cannot be read again, or is none that Pillow takes.
        return None
    return stream
