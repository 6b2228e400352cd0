"""The curves: exact steps, readable figures."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from deqcert.errors import DeqcertError
from deqcert.results import plots

matplotlib = pytest.importorskip("matplotlib")

STANDARD = plots.Curve(
    name="standard", guarantee="standard", correct_radii=(0.5, 0.25, 0.5, 1.0), images=5
)
PAPER = plots.Curve(name="_paper $1", guarantee="none", correct_radii=(0.75,), images=5)
EMPTY = plots.Curve(name="nothing", guarantee="audited", correct_radii=(), images=5)


def figure(*curves: plots.Curve) -> object:
    return plots.certified_accuracy_figure(curves, radii=[0.0, 0.5, 1.0], title="digits test")


def test_steps_by_hand() -> None:
    x, y = plots.steps(STANDARD, end=1.5)
    assert x == [0.0, 0.25, 0.5, 0.5, 1.0, 1.5]
    assert y == [80.0, 80.0, 60.0, 40.0, 20.0, 0.0]


def test_drawn_curve_is_the_certified_accuracy_everywhere() -> None:
    generator = np.random.Generator(np.random.PCG64(0))
    radii = tuple(float(r) for r in np.round(generator.gamma(2, 0.3, 60), 1))
    curve = plots.Curve(name="many", guarantee="standard", correct_radii=radii, images=80)
    x, y = plots.steps(curve, end=9.0)
    for r in np.linspace(0.001, 8.999, 400):
        drawn = y[int(np.searchsorted(x, r, side="left"))]  # steps-pre: the value at the right end
        assert drawn == pytest.approx(100 * curve.at(float(r)))


def test_labels_units_and_legend() -> None:
    axes = figure(STANDARD, PAPER, EMPTY).axes[0]
    assert "radius" in axes.get_xlabel()
    assert "pixel units" in axes.get_xlabel()
    assert axes.get_ylabel() == "certified accuracy at $r$ (%)"
    assert axes.get_title(loc="left") == "digits test"
    names = [text.get_text() for text in _legend(axes).get_texts()]
    assert names == ["standard", r" _paper \$1 (no guarantee)", "nothing"]
    assert axes.get_ylim() == (0, 100)


def _legend(axes):
    """Two curves have theirs inside the axes, more below them."""
    inside = axes.get_legend()
    return axes.figure.legends[0] if inside is None else inside


def test_few_curves_have_their_legend_inside() -> None:
    assert figure(STANDARD, PAPER).axes[0].get_legend() is not None
    many = figure(*[STANDARD] * 3)
    assert many.axes[0].get_legend() is None
    many.draw_without_rendering()
    below = many.legends[0].get_window_extent()
    assert below.y1 < many.axes[0].get_window_extent().y0, "no curve lies under it"


@pytest.mark.parametrize("letters", [3, 40, 70, 120])
@pytest.mark.parametrize("count", [3, 7])
def test_names_of_any_length_are_shown_whole(letters: int, count: int) -> None:
    name = "study " * (letters // 6) + "n" * (letters % 6)
    curve = plots.Curve(name=name, guarantee="none", correct_radii=(0.5, 1.0), images=2)
    many = figure(*[curve] * count)
    usual = figure(*[STANDARD] * 3)
    for made in (many, usual):
        made.draw_without_rendering()
    legend, axes = many.legends[0].get_window_extent(), many.axes[0].get_window_extent()
    assert legend.x0 >= 0
    assert legend.x1 <= many.bbox.width
    assert 0 <= legend.y0 < legend.y1 < axes.y0
    assert axes.height > 0.85 * usual.axes[0].get_window_extent().height, "the figure grew instead"


def test_curves_differ_without_colour() -> None:
    curves = [
        plots.Curve(name=str(k), guarantee="standard", correct_radii=(0.5, 1.0), images=2)
        for k in range(5)
    ]
    handles = _legend(figure(*curves).axes[0]).legend_handles
    drawn = {(handle._dash_pattern[1] and tuple(handle._dash_pattern[1])) for handle in handles}
    assert len(drawn) == 5
    assert len({handle.get_marker() for handle in handles}) == 5
    assert len({handle.get_color() for handle in handles}) == 5


def test_files_are_pictures() -> None:
    made = figure(STANDARD, PAPER)
    png, pdf = plots.encode(made, "png"), plots.encode(made, "pdf")
    picture = np.asarray(Image.open(io.BytesIO(png)).convert("L"))
    assert picture.shape == (840, 1280)
    assert 0.005 < (picture < 128).mean() < 0.2, "dark lines and text on a light ground"
    assert pdf.startswith(b"%PDF-")
    assert pdf.rstrip().endswith(b"%%EOF")
    assert b"/Type /Font" in pdf, "text is text"
    assert plots.encode(figure(STANDARD, PAPER), "pdf") == pdf


def test_matplotlibs_own_settings_are_left_alone() -> None:
    before = dict(matplotlib.rcParams)
    plots.encode(figure(STANDARD), "png")
    assert dict(matplotlib.rcParams) == before


def test_missing_matplotlib_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(DeqcertError, match=r'pip install "deqcert\[report\]"'):
        figure(STANDARD)
