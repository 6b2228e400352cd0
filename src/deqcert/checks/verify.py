"""`verify`: anyone can check a run folder, with or without the model."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

import numpy as np
import scipy
from torch import Tensor

from deqcert.checks.bounds import check_bound
from deqcert.checks.consistency import (
    check_belongs,
    check_data,
    check_set,
    check_table,
)
from deqcert.checks.counts import check_counts, stopped
from deqcert.checks.deterministic import (
    DeterministicCertifier,
    certify_again,
    check_certain,
    check_same_facts,
    deterministic_certifier_of,
)
from deqcert.checks.draws import DrawTest
from deqcert.checks.elsewhere import Elsewhere, compare_places, margin_note
from deqcert.checks.models import find_model, model_differences
from deqcert.checks.problems import DrawCheck, Place, Problem, Verification
from deqcert.checks.read import Found, RunFiles, read_run
from deqcert.checks.replay import certifier_of, replay
from deqcert.checks.schema import check_certain_schema, check_schema
from deqcert.checks.settings import check_configuration, is_deterministic
from deqcert.data import SOURCES, Dataset, load_data
from deqcert.errors import ConfigurationError, DataError, DeqcertError
from deqcert.models import EquilibriumModel
from deqcert.models.devices import usable_device
from deqcert.results.run_folder import RUN
from deqcert.smoothing import fresh_seed
from deqcert.smoothing.certifier import Certifier
from deqcert.smoothing.noise import check_seed
from deqcert.smoothing.settings import check_count

_OF_THE_MODEL = ("configuration.weights_digest", "configuration.architecture")

Watch = Callable[[int, int, str], None]
"""Called as ``watch(done, total, what)`` while records are replayed."""


def verify(
    run: str | PathLike[str],
    *,
    model: EquilibriumModel | str | Path | None = None,
    data: Dataset | None = None,
    data_dir: str | PathLike[str] | None = None,
    replays: int = 0,
    indices: Sequence[int] = (),
    draws: int | None = None,
    seed: int | None = None,
    device: str | None = None,
    batch_size: int | None = None,
    watch: Watch | None = None,
) -> Verification:
    """Check a run folder; say what is wrong in it, record by record.

    Always, at no cost: every record's format and ranges, its counts, plan, audit and shares of
    alpha; its bound and radius computed again from the counts; prediction, `correct` and `status`;
    that all records are of the run in ``run.json``, none twice, none left out; ``cohen.tsv``; the
    labels and the digest of the data set, where it is at hand; the digest of the weights, where the
    model is. That cannot find a record which is consistent but invented: for this, records are
    made again, from their noise keys where there is noise.

    Args:
        run: The run folder.
        model: The model, its zoo name or path; None looks among the shipped ones by digest.
        data: The data set; None loads it by its name in ``run.json`` if it is here.
        data_dir: Folder with the data set's original files.
        replays: Records to replay, chosen at random; >= 0.
        indices: Images to replay besides.
        draws: Test that many draws of each chosen record (of every one, if none is chosen) instead
            of replaying it whole: see `deqcert.checks.draws` for what this can show.
        seed: Seed of the random choices; None takes one from the operating system, which whoever
            made the run cannot have foreseen.
        device: Device of the replay; None takes that of the run.
        batch_size: Rows computed at once; hardware only.
        watch: Callback for progress.

    Raises:
        RunFolderError: No run folder, or a damaged ``run.json``.
        ConfigurationError: A replay without a model or data, or numbers out of range.
    """
    if type(replays) is not int or replays < 0:
        raise ConfigurationError(f"replays must be an integer >= 0, but got {replays!r}")
    if draws is not None:
        check_count("draws", draws)
    if batch_size is not None:
        check_count("batch_size", batch_size)
    if seed is not None:
        check_seed(seed)
    usable_device(device)
    files = read_run(run)
    if draws is not None and is_deterministic(files.configuration):
        raise ConfigurationError(
            "a deterministic run has no draws to test: certify images again (--replay, --index)"
        )
    found, problems = _check_files(files)
    notes: list[str] = []
    images = _data(files, data, data_dir, notes)
    if images is not None:
        problems += check_data(files, found, images)
    subject = _model(files, model, notes, problems)
    wanted = bool(replays or indices or draws)
    result = _Replays()
    if wanted:
        seed = fresh_seed() if seed is None else check_seed(seed)
        chosen = _choose(found, replays, indices, draws is not None, seed)
        _check_possible(files, subject, images, problems)
        unfit = [p.field for p in problems if p.file == RUN]
        if unfit:
            notes.append(f"nothing was replayed: {RUN} is not that of a run ({unfit[0]})")
        elif subject is not None and images is not None:
            place = compare_places(files.environments, device)
            how = _How(draws, seed, watch or (lambda done, total, what: None), place)
            certifier = _certifier(files, subject, str(place.device), batch_size)
            result = _replay(certifier, images, chosen, how)
            notes += [*place.notes, *result.notes]
    elif found:
        notes.append("nothing was replayed: an invented but consistent record would pass")
    return Verification(
        path=str(files.path),
        records=len(found),
        problems=tuple(problems + result.problems),
        notes=tuple(notes),
        replayed=tuple(result.replayed),
        draw_checks=tuple(result.draw_checks),
        seed=seed if wanted else None,
    )


@dataclass(frozen=True)
class _How:
    draws: int | None
    seed: int
    watch: Watch
    place: Elsewhere


@dataclass
class _Replays:
    notes: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    replayed: list[int] = field(default_factory=list)
    draw_checks: list[DrawCheck] = field(default_factory=list)


def _check_files(files: RunFiles) -> tuple[list[Found], list[Problem]]:
    """Return the records of the right schema, and the problems found without model and data."""
    problems = [*files.problems, *check_configuration(files.configuration)]
    certain = is_deterministic(files.configuration)
    exact = _same_libraries(files)
    found: list[Found] = []
    for item in files.found:
        schema = check_certain_schema if certain else check_schema
        flaws = list(schema(item.place, item.record))
        problems += flaws
        if flaws:
            continue  # what the fields say can only be judged if they can be read
        found.append(item)
        if certain:
            problems += check_certain(item.place, item.record, files.configuration)
        else:
            problems += _check_draws(files, item, exact)
    problems += check_set(files, found)
    problems += check_same_facts(files, found) if certain else []
    problems += check_table(files.table, found)
    return found, problems


def _check_draws(files: RunFiles, item: Found, exact: bool) -> list[Problem]:
    """Return what is wrong in one record of labels under noise."""
    setting = files.configuration.get("audit")
    setting = setting if type(setting) in (int, float) else "auto"
    return [
        *check_belongs(item.place, item.record, files.configuration),
        *check_counts(item.place, item.record, setting),
        *check_bound(item.place, item.record, exact=exact),
    ]


def _same_libraries(files: RunFiles) -> bool:
    """Whether all bounds come from the SciPy and the kind of machine that is here."""
    here = {"scipy": scipy.__version__, "machine": platform.machine()}
    return all(
        environment.get(name) == value
        for environment in files.environments
        for name, value in here.items()
    )


def _data(
    files: RunFiles,
    data: Dataset | None,
    data_dir: str | PathLike[str] | None,
    notes: list[str],
) -> Dataset | None:
    """Return the run's data set, or None, with a note, where it is not here."""
    if data is not None:
        return data
    name, split = files.configuration.get("data"), files.configuration.get("split")
    if not isinstance(name, str) or name not in SOURCES:
        notes.append(f"labels were not checked: the data set {name!r} is not a known one")
        return None
    try:
        return load_data(name, split=str(split), folder=data_dir, download=False)
    except DataError as error:
        if data_dir is not None:
            raise
        notes.append(f"labels were not checked: {error}")
    except DeqcertError as error:  # an unknown split
        notes.append(f"labels were not checked: {error}")
    return None


def _model(
    files: RunFiles,
    model: EquilibriumModel | str | Path | None,
    notes: list[str],
    problems: list[Problem],
) -> EquilibriumModel | None:
    """Return the model with the run's weights, or None."""
    digest = files.configuration.get("weights_digest")
    subject = find_model(model, digest)
    if subject is None:
        notes.append("weights were not checked: no shipped model has their digest; give the model")
        return None
    if files.configuration.get("architecture") is None:
        notes.append(f"{RUN} names weights alone, as older versions did, and no architecture")
    why = "the certificates are about another model than this one"
    others = [
        Place(RUN).problem(f"configuration.{name}", recorded, own, why)
        for name, recorded, own in model_differences(files.configuration, subject)
    ]
    problems += others
    return None if others else subject


def _check_possible(
    files: RunFiles,
    model: EquilibriumModel | None,
    data: Dataset | None,
    problems: Sequence[Problem],
) -> None:
    """Refuse a replay for which something is missing that is not already a problem."""
    mismatch = any(found.field.startswith(_OF_THE_MODEL) for found in problems)
    if model is None and not mismatch:
        raise ConfigurationError(
            f"a replay needs the model of {files.path} (--model): no shipped one has its weights"
        )
    if data is None:
        raise ConfigurationError(
            f"a replay needs the data set of {files.path}: give its folder (--data-dir)"
        )


def _choose(
    found: list[Found], replays: int, indices: Sequence[int], by_draws: bool, seed: int
) -> list[Found]:
    """Return the records to replay: those asked for, and `replays` random others."""
    by_index = {item.record["index"]: item for item in found}
    absent = [index for index in indices if index not in by_index]
    if absent:
        raise ConfigurationError(f"the run has no whole record of image {absent[0]}")
    if by_draws and not replays and not indices:
        return list(by_index.values())
    others = sorted(by_index.keys() - set(indices))
    random = np.random.default_rng([seed & 0xFFFFFFFF, seed >> 32])
    drawn = random.choice(len(others), size=min(replays, len(others)), replace=False)
    return [by_index[index] for index in sorted({*indices, *(others[i] for i in drawn)})]


def _certifier(
    files: RunFiles, model: EquilibriumModel, device: str, batch_size: int | None
) -> Certifier | DeterministicCertifier:
    """Return the run's certifier."""
    if is_deterministic(files.configuration):
        return deterministic_certifier_of(files.configuration, model, batch_size=batch_size)
    return certifier_of(files.configuration, model, device=device, batch_size=batch_size)


def _replay(
    certifier: Certifier | DeterministicCertifier, data: Dataset, chosen: list[Found], how: _How
) -> _Replays:
    """Replay the chosen records, whole or by draws."""
    result = _Replays()
    for done, item in enumerate(chosen):
        index = item.record["index"]
        how.watch(done, len(chosen), f"image {index}")
        if index >= len(data):
            continue  # reported already
        if stopped(item.record):
            result.notes.append(
                f"image {index} was given up for its time limit: nothing to replay, nothing claimed"
            )
            continue
        if how.draws is None or not isinstance(certifier, Certifier):
            _replay_whole(certifier, data[index].image, item, how.place, result)
            continue
        test = DrawTest(certifier, how.draws, how.seed, len(chosen))
        problems, check = test.check(data[index].image, item.place, item.record)
        result.problems += problems
        result.draw_checks += [] if check is None else [check]
    how.watch(len(chosen), len(chosen), "")
    return result


def _replay_whole(
    certifier: Certifier | DeterministicCertifier,
    image: Tensor,  # (C, H, W)
    item: Found,
    place: Elsewhere,
    result: _Replays,
) -> None:
    """Make one record again, and note what differs."""
    if isinstance(certifier, Certifier):
        problems = list(replay(certifier, image, item.place, item.record))
    else:
        exact = place.exact
        problems = list(certify_again(certifier, image, item.place, item.record, exact=exact))
    if place.explains(problems):
        note = margin_note(problems.pop())
        result.notes += [] if note in result.notes else [note]
    result.problems += problems
    result.replayed.append(item.record["index"])
