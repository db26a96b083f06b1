"""Local cell weighting of topological clusters, the calibration to be beaten (arXiv:1603.02934,
section 5).

    tables = derive_lcw("train.root")        # four steps, from simulated neutral and charged pions
    tables.save("lcw.json")                  # correctionlib
    energies = apply_lcw("data.root", LcwTables.load("lcw.json"))
    energies.full                            # GeV, one a cluster

`lcw_tables` holds binning, formulas and the file, `lcw_fit` how what they
contain is derived.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from pfcalib.cache import cache_key, locked
from pfcalib.calibration.lcw_fit import TARGETS, TRUTH, fit_lcw
from pfcalib.calibration.lcw_tables import (
    CELLS_READ,
    PUBLISHED,
    SCALARS_READ,
    LcwConfig,
    LcwEnergies,
    LcwTables,
    require_probabilities,
)
from pfcalib.errors import ValidationError
from pfcalib.samples.read import PathLike, iterate_sample
from pfcalib.samples.rootfile import content_id
from pfcalib.samples.schema import Sample
from pfcalib.samples.split import split_index, split_of

__all__ = [
    "PUBLISHED",
    "LcwConfig",
    "LcwEnergies",
    "LcwTables",
    "apply_lcw",
    "cached_lcw",
    "derive_lcw",
    "fit_lcw",
]

N_PASSES = 2  # of fit_lcw
STEP = 20_000  # entries in memory at once
_APPLY_COLUMNS = (*SCALARS_READ, *CELLS_READ)
_DERIVE_COLUMNS = (*_APPLY_COLUMNS, "eventNumber", "truthPdgId", *TARGETS, *TRUTH)


def derive_lcw(
    path: PathLike,
    *,
    split: str = "train",
    config: LcwConfig | None = None,
    progress: Callable[[int], None] | None = None,
) -> LcwTables:
    """Tables of local cell weighting from the clusters of a file that pass the selection of the
    configuration.

    Parameters
    ----------
    path : path-like
        Sample of neutral and charged pions with calibration truth.
    split : "train", "validation", "test" or "all"
        Which events are used.
    config : LcwConfig, optional
    progress : callable, optional
        Is told how many more clusters were read; each is read `N_PASSES` times.

    Raises
    ------
    BadFileError
        If the file cannot be read or lacks a column.
    ConfigError
        If there is no such split.
    ValidationError
        If it has no clusters of one of the two kinds.
    """
    config = config or LcwConfig()
    number = None if split == "all" else split_index(split)

    def chunks() -> Iterator[Sample]:
        for sample in iterate_sample(path, step=STEP, columns=_DERIVE_COLUMNS):
            keep = config.selection.mask(sample.scalars)
            if number is not None:
                keep &= split_of(sample["eventNumber"]) == number
            yield sample[keep]
            if progress is not None:
                progress(len(sample))

    return fit_lcw(chunks, config, provenance={"sample": Path(str(path)).name, "split": split})


def apply_lcw(
    paths: PathLike | Sequence[PathLike],
    tables: LcwTables,
    *,
    p_em: ArrayLike | None = None,
    step: int = STEP,
) -> LcwEnergies:
    """Energies after each step of all clusters of one or several files, in the order of the files.

    Parameters
    ----------
    paths : path-like or sequence of them
    tables : LcwTables
    p_em : array_like, shape (n_clusters,), optional
        Probability of another classifier for all clusters, in place of the likelihood.
    step : int
        Entries in memory at once.

    Raises
    ------
    BadFileError
        If a file cannot be read or lacks a column.
    ValidationError
        If p_em is not one probability for each cluster of the files.
    """
    given = None if p_em is None else require_probabilities(p_em, np.asarray(p_em).size)
    parts, seen = [LcwEnergies(*np.zeros((4, 0)))], 0
    for sample in iterate_sample(paths, step=step, columns=_APPLY_COLUMNS):
        chosen = None if given is None else given[seen : seen + len(sample)]
        parts.append(tables.apply(sample, p_em=chosen))
        seen += len(sample)
    if given is not None and len(given) != seen:
        raise ValidationError(
            f"p_em has {len(given)} values, but there are {seen} clusters in {paths}"
        )
    return LcwEnergies(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def cached_lcw(path: PathLike, split: str = "train", config: LcwConfig | None = None) -> Path:
    """Path of the tables of a sample, derived on first use; parameters and errors as in
    `derive_lcw`.

    They lie beside the sample. The name holds a key of the sample's content, the split, the
    configuration and the version of the derivation, so a change of any of these derives new ones. A
    second process that wants the same tables waits for the first one.
    """
    config, path = config or LcwConfig(), Path(path)
    key = cache_key("features", "lcw", sample=content_id(path), split=split, config=config)
    target = path.parent / "calibrations" / f"lcw-{path.stem}-{key}.json"
    with locked(target):
        if not target.exists():
            derive_lcw(path, split=split, config=config).save(target)
    return target
