"""What is measured is measured once, whatever happens in between."""

from __future__ import annotations

import pytest
from ledger import Ledger


def test_results_are_kept_one_by_one_and_not_measured_again(tmp_path):
    path = tmp_path / "new" / "results.json"
    first = Ledger(path, {"n": 3})
    assert first.measure("a", lambda: 1) == 1
    with pytest.raises(ZeroDivisionError):
        first.measure("b", lambda: 1 // 0)
    second = Ledger(path, {"n": 3})
    assert second.measure("a", lambda: 2) == 1
    assert second.measure("b", lambda: 3) == 3
    assert Ledger(path, {"n": 3}).results == {"a": 1, "b": 3}
    assert Ledger(path, {"n": 3}).content["machine"]["torch"]


def test_other_settings_do_not_mix(tmp_path):
    path = tmp_path / "results.json"
    Ledger(path, {"n": 3}).measure("a", lambda: 1)
    with pytest.raises(ValueError, match="other settings"):
        Ledger(path, {"n": 4})
    assert Ledger(path, {"n": 4}, again=True).results == {}
