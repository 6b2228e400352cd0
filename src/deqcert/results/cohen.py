"""Rows of ``cohen.tsv``: the log format of Cohen, Rosenfeld and Kolter (2019), locuslab/smoothing.

The field's analysis scripts read it. Two habits of the original are kept (abstention is -1, tabs),
one is not: radii are rounded down instead of to nearest, which could overstate them.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from decimal import ROUND_FLOOR, Decimal
from typing import Any

HEADER = "idx\tlabel\tpredict\tradius\tcorrect\ttime"
DECIMALS = Decimal("0.000001")


def round_down(radius: float) -> str:
    """Return `radius` with six decimals, never above the exact value of the float.

    >>> round_down(0.9999999)
    '0.999999'
    """
    return str(Decimal(radius).quantize(DECIMALS, rounding=ROUND_FLOOR))


def cohen_row(record: Mapping[str, Any]) -> str:
    """Return the line of one record, without its newline."""
    prediction = -1 if record["prediction"] is None else record["prediction"]
    elapsed = datetime.timedelta(seconds=record["seconds"])
    return (
        f"{record['index']}\t{record['label']}\t{prediction}\t{round_down(record['radius'])}"
        f"\t{int(record['correct'])}\t{elapsed}"
    )
