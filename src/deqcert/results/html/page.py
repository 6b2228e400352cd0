"""The page: pictures, numbers, rows and words of all runs, put into the template."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from deqcert.errors import DeqcertError
from deqcert.results.html import bundle, words
from deqcert.results.html.audits import audit_sentence, audits_picture
from deqcert.results.html.curves import curves_picture
from deqcert.results.html.numbers import Card, TogetherLine, card, together_lines
from deqcert.results.html.outcomes import outcomes_picture
from deqcert.results.html.pareto import pareto_picture
from deqcert.results.html.rows import data_key, image_rows, thumbnails
from deqcert.results.html.runs import ReportedRun
from deqcert.results.html.solvers import solvers_picture
from deqcert.results.html.style import Picture
from deqcert.results.notes import WARNING
from deqcert.results.summary import L2, LINF
from deqcert.results.tables import Line, lines

SIGMA, NBSP = "\N{GREEK SMALL LETTER SIGMA}", "\N{NO-BREAK SPACE}"
INSTALL_HINT = 'the HTML report needs plotly and jinja2: pip install "deqcert[report]"'


class MissingPageLibraryError(DeqcertError):
    """plotly or jinja2 is not installed; the message says how to get them."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """The runs of one norm: they share plots and tables.

    Attributes:
        norm: ``L2`` or ``Linf``.
        runs: Those with records.
        cards: The numbers of each run that a reader looks for first.
        lines: The table of numbers, a column per run.
        together: What is certified if all claims of a run shall hold at once.
        pictures: The figures.
        audits: What audits found, in words.
        reasons: Why images were given up, by run.
    """

    norm: str
    runs: Sequence[ReportedRun]
    cards: Sequence[Card]
    lines: Sequence[Line]
    together: Sequence[TogetherLine]
    pictures: Sequence[Picture]
    audits: Sequence[str]
    reasons: Sequence[tuple[str, list[str]]]

    @property
    def sure(self) -> str:
        """Confidence of the bounds in brackets, in percent."""
        return f"{100 * (1 - next(run.summary.rho for run in self.runs if run.summary)):g}"

    @property
    def images(self) -> int:
        """Rows of the table of images."""
        return sum(len(run.records) for run in self.runs)


def render_page(runs: Sequence[ReportedRun], notes: Sequence[str]) -> str:
    """Return the page of all `runs`, which may be without records.

    Raises:
        MissingPageLibraryError: plotly or jinja2 is not installed.
    """
    try:
        import jinja2

        libraries = bundle.libraries()
    except ImportError as error:
        raise MissingPageLibraryError(INSTALL_HINT) from error
    groups = [_group(runs, norm) for norm in (L2, LINF)]
    groups = [group for group in groups if group.runs]
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(bundle.asset),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = bundle.script()
    return environment.get_template("page.html.j2").render(
        title=page_title(runs),
        lead=_lead(runs),
        warnings=[note.removeprefix(WARNING) for note in notes if note.startswith(WARNING)],
        notes=[note for note in notes if not note.startswith(WARNING)],
        groups=groups,
        runs=runs,
        words=words,
        policy=bundle.policy(script, libraries),
        style=bundle.asset("page.css"),
        script=script,
        libraries=bundle.packed_libraries(),
        data=bundle.pack(json.dumps(_data(runs, groups), separators=(",", ":"))),
    )


def page_title(runs: Sequence[ReportedRun]) -> str:
    """Say what the runs are about."""
    data = sorted({_data_name(run) for run in runs})
    count = "one run" if len(runs) == 1 else f"{len(runs)} runs"
    return f"{' and '.join(data)}: {count}"


def _data_name(run: ReportedRun) -> str:
    found = [str(run.configuration[key]) for key in ("data", "split") if key in run.configuration]
    return ", ".join(found) or "unknown data"


def _lead(runs: Sequence[ReportedRun]) -> str:
    """Say in a sentence what was certified, and how."""
    images = sorted({len(run.records) for run in runs})
    span = f"{images[0]:,}" if len(images) == 1 else f"{images[0]:,} to {images[-1]:,}"
    sigmas = sorted({run.summary.sigma for run in runs if run.summary and run.summary.sigma})
    levels = ", ".join(f"{sigma:g}" for sigma in sigmas)
    noise = f", noise {SIGMA}{NBSP}={NBSP}{levels}" if sigmas else ""
    methods = ", ".join(dict.fromkeys(run.method for run in runs))
    plural = "" if images == [1] else "s"
    return f"{span} certified image{plural} per run by {methods}{noise}."


def _group(runs: Sequence[ReportedRun], norm: str) -> Group:
    shown = [run for run in runs if run.norm == norm and run.records]
    if not shown:
        return Group(
            norm=norm, runs=(), cards=(), lines=(), together=(), pictures=(), audits=(), reasons=()
        )
    pictures = (
        curves_picture(shown),
        pareto_picture(shown),
        outcomes_picture(shown),
        audits_picture(shown),
        solvers_picture(shown),
    )
    return Group(
        norm=norm,
        runs=shown,
        cards=[card(run) for run in shown],
        lines=lines([run.summary for run in shown if run.summary]),
        together=together_lines(shown),
        pictures=[picture for picture in pictures if picture is not None],
        audits=[sentence for run in shown if (sentence := audit_sentence(run))],
        reasons=[(run.name, words.abstention_reasons(run)) for run in shown],
    )


def _data(runs: Sequence[ReportedRun], groups: Sequence[Group]) -> dict[str, Any]:
    """Return what the page's script reads."""
    return {
        "runs": [
            {
                "name": run.name,
                "claims": run.claims,
                "title": run.title,
                "void": run.guarantee == "none",
                "norm": run.norm,
                "colour": run.look.colour,
                "data": data_key(run),
                "classes": run.class_names,
                "alpha": run.summary.alpha if run.summary else 0,
            }
            for run in runs
        ],
        "pictures": {
            picture.key: {"figure": picture.figure, "more": picture.more, "norm": group.norm}
            for group in groups
            for picture in group.pictures
        },
        "images": {group.norm: image_rows(group.runs) for group in groups},
        "thumbnails": thumbnails(runs),
    }
