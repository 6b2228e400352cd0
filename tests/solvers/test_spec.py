"""Solver strings: what they mean, how they print, what they refuse."""

from __future__ import annotations

import pytest
import torch

from deqcert.errors import ConfigurationError, UnknownNameError
from deqcert.solvers import SolverSpec, solve


def test_defaults_of_each_solver() -> None:
    assert SolverSpec.parse("anderson:30") == SolverSpec(
        "anderson", 30, tol=0.0, memory=6, ridge=1e-4, mixing=1.0
    )
    assert SolverSpec.parse("broyden:14").memory == 30
    assert SolverSpec.parse("picard:3").mixing == 1.0


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("anderson:30", "anderson:30"),
        ("anderson:30:1e-3", "anderson:30:0.001"),
        ("anderson:30:0", "anderson:30"),
        ("anderson:30:1e-3,memory=5,mixing=0.8", "anderson:30:0.001,memory=5,mixing=0.8"),
        (" anderson : 30 : 1e-3 , memory = 6 ", "anderson:30:0.001"),
        ("anderson:7,ridge=1e-8", "anderson:7,ridge=1e-08"),
        ("broyden:14:1e-5,memory=10", "broyden:14:1e-05,memory=10"),
        ("picard:1,mixing=0.5", "picard:1,mixing=0.5"),
        ("picard:4:0.123456789012", "picard:4:0.123456789012"),
        ("picard:8,exits=2@0.7+4@0.15", "picard:8,exits=2@0.7+4@0.15"),
        ("picard:8, exits = 2 @ 7e-1 ,mixing=0.9", "picard:8,mixing=0.9,exits=2@0.7"),
        ("picard:8,exits=2@0", "picard:8,exits=2@0.0"),
    ],
)
def test_strings_print_and_parse_back(text: str, printed: str) -> None:
    spec = SolverSpec.parse(text)
    assert str(spec) == printed
    assert SolverSpec.parse(printed) == spec
    assert SolverSpec.parse(spec) is spec


@pytest.mark.parametrize("text", ["andersen:30", "", ":3", "anderson_:3"])
def test_unknown_solvers_list_the_known_ones(text: str) -> None:
    with pytest.raises(UnknownNameError, match="known: anderson, broyden, picard"):
        SolverSpec.parse(text)


def test_unknown_option_is_not_swallowed() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'memory'"):
        SolverSpec.parse("anderson:30,memry=5")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("anderson", "name:steps"),
        ("anderson:30:1e-3:7", "name:steps"),
        ("anderson:three", "'three' is not an integer"),
        ("anderson:3.5", "'3.5' is not an integer"),
        ("anderson:0", "max_steps must be an integer >= 1, but got 0"),
        ("anderson:-2", "max_steps must be an integer >= 1, but got -2"),
        ("anderson:3:-1e-3", "tol must be finite and >= 0"),
        ("anderson:3:nan", "tol must be finite and >= 0"),
        ("anderson:3:small", "'small' is not a number"),
        ("anderson:3,memory=-1", "memory must be an integer >= 1"),
        ("anderson:3,mixing=0", r"mixing must be in \(0, 1\], but got 0.0"),
        ("anderson:3,mixing=1.5", r"mixing must be in \(0, 1\], but got 1.5"),
        ("anderson:3,ridge=inf", "ridge must be finite"),
        ("anderson:3,memory=5,memory=6", "given twice"),
        ("anderson:3,memory", "'' is not an integer"),
        ("picard:3,memory=5", "picard does not use memory"),
        ("broyden:3,ridge=0.1", "broyden does not use ridge"),
        ("anderson:8,exits=2@0.5", "anderson does not use exits"),
        ("picard:8:1e-3,exits=2@0.5", "a tolerance or exits, not both"),
        ("picard:8,exits=2", r"must read STEPS@LEAD\+STEPS@LEAD, but got '2'"),
        ("picard:8,exits=", r"must read STEPS@LEAD"),
        ("picard:8,exits=2@much", "'much' is not a number"),
        ("picard:8,exits=2.5@1", "'2.5' is not an integer"),
        ("picard:8,exits=4@0.5+2@0.5", r"ascending numbers of steps, but got \[4, 2\]"),
        ("picard:8,exits=2@0.5+2@0.1", r"ascending numbers of steps, but got \[2, 2\]"),
        ("picard:8,exits=0@0.5", r"ascending numbers of steps, but got \[0\]"),
        ("picard:8,exits=8@0.5", "before the last of 8 steps, but got one at 8"),
        ("picard:8,exits=2@-0.5", "leads of exits must be finite and >= 0"),
        ("picard:8,exits=2@nan", "leads of exits must be finite and >= 0"),
    ],
)
def test_bad_settings_name_rule_and_value(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        SolverSpec.parse(text)


@pytest.mark.parametrize("value", [None, 3, 2.5, b"picard:3"])
def test_other_types_are_refused(value: object) -> None:
    with pytest.raises(ConfigurationError, match="must be a string"):
        SolverSpec.parse(value)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("setting", [{"max_steps": True}, {"max_steps": 3.0}, {"tol": "1e-3"}])
def test_settings_of_another_type_are_refused(setting: dict[str, object]) -> None:
    values: dict[str, object] = {"max_steps": 3, **setting}
    with pytest.raises(ConfigurationError, match="must be"):
        SolverSpec("picard", **values)  # pyright: ignore[reportArgumentType]


def test_exits_may_be_given_as_pairs_and_are_left_out_by_plain() -> None:
    spec = SolverSpec("picard", 8, exits=[[2, 1], [4, 0.5]])  # pyright: ignore[reportArgumentType]
    assert spec == SolverSpec.parse("picard:8,exits=2@1+4@0.5")
    assert spec.plain == SolverSpec("picard", 8)
    with pytest.raises(ConfigurationError, match="pairs of steps and a lead"):
        SolverSpec("picard", 8, exits=(2, 0.5))  # pyright: ignore[reportArgumentType]


def test_exits_are_refused_where_there_are_no_logits() -> None:
    text = "picard:8,exits=2@0.7"
    with pytest.raises(ConfigurationError, match=f"serial takes no exits, but got {text}"):
        SolverSpec.parse(text, within="serial")
    with pytest.raises(ConfigurationError, match="a solve without logits takes no exits"):
        solve(lambda z, u: z, torch.zeros(2, 3), torch.zeros(2, 3), spec=text)
