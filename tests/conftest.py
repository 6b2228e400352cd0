"""Seeds are fixed, so that a failure repeats; DEQCERT_UNLOCK_SEED=1 frees them."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True)
def _fixed_seed():
    if not os.environ.get("DEQCERT_UNLOCK_SEED"):
        torch.manual_seed(0)
        np.random.seed(0)
