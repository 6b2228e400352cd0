"""The noise streams by name, and the one that is made on the device where the model runs.

THEORY 7.2. A GPU labels a draw in less time than a host makes one, so it makes its own, by
counters: no state, no order, nothing to wait for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from deqcert.errors import ConfigurationError, unknown_name
from deqcert.smoothing.noise import NOISE_STREAM, HostStream, NoiseKey, Stream, hashed
from deqcert.smoothing.philox import WORD, normals, philox4x32

DEVICE_STREAM = "torch-philox4x32-boxmuller-float32-v1"
"""Name of the stream, recorded in certificates; a change of any detail of it needs a new name."""

NOISE_STREAMS = (NOISE_STREAM, DEVICE_STREAM)
"""Names of all streams, as runs and certificates have them."""

_SHORT = {"host": NOISE_STREAM, "device": DEVICE_STREAM}

AT_ONCE_CPU, AT_ONCE_GPU = 1 << 16, 1 << 22
"""Numbers made at once, at about 40 bytes each: what a cache holds, and 170 MB."""


def make_stream(name: str | None, device: torch.device) -> Stream:
    """Return the stream called `name`, or ``host`` or ``device`` for short.

    None is the device's own on a GPU, else the host's.

    Raises:
        UnknownNameError: No stream is called that.
        ConfigurationError: The device cannot make it.
    """
    if name is None:
        name = DEVICE_STREAM if device.type == "cuda" else NOISE_STREAM
    name = _SHORT.get(name, name)
    if name not in NOISE_STREAMS:
        raise unknown_name("noise stream", name, (*_SHORT, *NOISE_STREAMS))
    if name == NOISE_STREAM:
        return HostStream()
    if device.type == "mps":
        raise ConfigurationError(
            f"noise stream {DEVICE_STREAM} computes in float64, which device mps lacks: use "
            f"{NOISE_STREAM}"
        )
    return DeviceStream(device, AT_ONCE_CPU if device.type == "cpu" else AT_ONCE_GPU)


@dataclass(frozen=True)
class DeviceStream:
    """The stream ``DEVICE_STREAM``: Philox4x32-10 and Box-Muller, where the model runs.

    A 128-bit hash of (seed, image index, stage) is the 64-bit key and the upper half of the
    counter; the lower half is (group, draw). A draw of D numbers has G = ceil(D / 4) groups; its
    number p is number p // G of group p % G, in the order of `philox.normals`, which says what the
    grids of its numbers do. So a number depends on its key, draw, position and D alone.

    The words are integers and the same on every device. Logarithm, root, cosine and sine are taken
    in float64 by the device's own library, right to an ulp or two, and rounded to float32 once. Two
    libraries therefore give the same float32 numbers but for those that fall within an ulp or two
    of the middle between two float32 numbers, about one in 10^8, which differ in their last bit.
    On one device each number is computed alone, so it is the same whatever is made beside it.

    Attributes:
        device: Where numbers are made.
        at_once: About how many are made at once, >= 1; no number depends on it.
    """

    device: torch.device
    at_once: int = AT_ONCE_CPU

    @property
    def name(self) -> str:
        """Its name in certificates."""
        return DEVICE_STREAM

    @property
    def on_host(self) -> bool:
        """False: the host only says what is to be computed."""
        return False

    def placed(self, image: Tensor) -> Tensor:
        """Return the tensor on the device; nobody waits for the copy."""
        if self.device.type != "cuda":
            return image.to(self.device)
        # From memory that may be swapped out a copy is no copy until the host has made another.
        return image.pin_memory().to(self.device, non_blocking=True)

    def normals(
        self,
        key: NoiseKey,
        stage: str,
        draws: np.ndarray,  # (count,) int64, in [0, 2^32)
    ) -> Tensor:  # (count, *key.shape) float32, on the device
        """Return the standard normal numbers of these draws.

        Raises:
            ConfigurationError: A draw or a shape beyond 32 bits.
        """
        size = math.prod(key.shape)
        groups = -(-size // 4)
        if max(groups, int(draws.max(initial=0)) + 1) > WORD:
            raise ConfigurationError(f"noise stream {DEVICE_STREAM} has 2^32 draws of 2^34 numbers")
        text = f"deqcert noise {DEVICE_STREAM}|{key.seed}|{key.index}|{stage}"
        one, two, three, four = np.frombuffer(hashed(text), dtype="<u4").tolist()
        places = torch.arange(groups, device=self.device)
        wanted = self.placed(torch.from_numpy(draws.copy()))  # what came by wire is read-only
        noise = torch.empty(len(draws), size, dtype=torch.float32, device=self.device)
        rows = max(1, self.at_once // size)
        for low in range(0, len(draws), rows):
            words = philox4x32(places, wanted[low : low + rows], (three, four), (one, two))
            noise[low : low + rows] = normals(words).flatten(1)[:, :size]
        return noise.reshape(len(draws), *key.shape)
