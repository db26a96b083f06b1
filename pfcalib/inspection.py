"""What is in a sample file, and is it sane: one pass over it at bounded memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pfcalib.columns import COLUMNS, SCALARS
from pfcalib.samples.read import iterate_sample
from pfcalib.samples.schema import Sample

SUM_TOLERANCE = 1e-3  # relative difference of clusterE and the sum of its cells, in float32


class Range(NamedTuple):
    """Smallest value, mean and largest value of a column over the finite entries, in the column's unit."""

    low: float
    mean: float
    high: float
    n_bad: int  # entries that are not finite


@dataclasses.dataclass
class SampleReport:
    """What one file holds."""

    path: Path
    n_clusters: int = 0
    n_events: int = 0
    n_cells: int = 0  # cell entries of all clusters
    n_em: int = 0  # clusters of pi0, photons and electrons
    metadata: dict[str, Any] = dataclasses.field(default_factory=dict)
    ranges: dict[str, Range] = dataclasses.field(default_factory=dict)
    problems: list[str] = dataclasses.field(default_factory=list)


def check_sample(path: Path | str, *, progress: Callable[[int], None] = lambda n_clusters: None) -> SampleReport:
    """Read a whole sample and report what it holds and what is wrong with its energies.

    Parameters
    ----------
    path : path
        A ROOT file of pfcalib's layout (trees ClusterTree and CellGeo).
    progress : callable
        Called with the number of clusters of each chunk.

    Raises
    ------
    pfcalib.errors.BadFileError
        If the file is not such a sample at all: a tree or a branch is missing, or of the wrong shape.
    """
    report = SampleReport(Path(path))
    events: set[int] = set()
    counts: dict[str, int] = {}
    for chunk in iterate_sample(path):
        first = report.n_clusters
        report.n_clusters += len(chunk)
        report.n_cells += int(chunk.offsets[-1] - chunk.offsets[0])
        report.n_em += int(chunk.is_em.sum())
        report.metadata = chunk.metadata
        events.update(np.unique(chunk["eventNumber"]).tolist())
        for name in SCALARS:
            report.ranges[name] = _widen(report.ranges.get(name), counts.get(name, 0), chunk[name])
            counts[name] = counts.get(name, 0) + len(chunk) - _count_bad(chunk[name])
        _add_problems(report.problems, chunk, first)
        progress(len(chunk))
    report.n_events = len(events)
    if not report.n_clusters:
        report.problems.append("the sample holds no cluster")
    report.problems += [f"{name}: {found.n_bad} entries are not finite" for name, found in report.ranges.items() if found.n_bad]
    return report


def _widen(before: Range | None, n_before: int, values: np.ndarray) -> Range:
    """Range of a column after one more chunk; ``n_before`` finite entries came before."""
    finite = np.asarray(values[np.isfinite(values)], dtype=np.float64)
    low, mean, high, n_bad = before or Range(np.inf, 0.0, -np.inf, 0)
    if finite.size:
        mean = (mean * n_before + finite.sum()) / (n_before + finite.size)
        low, high = min(low, finite.min()), max(high, finite.max())
    return Range(float(low), float(mean), float(high), n_bad + _count_bad(values))


def _count_bad(values: np.ndarray) -> int:
    return int(values.size - np.isfinite(values).sum())


def _add_problems(problems: list[str], chunk: Sample, first: int) -> None:
    """Append the first offender of each rule that no cluster may break; entries count from ``first``."""
    e_true, e_em, e_dep, e_sum = (chunk[name].astype(np.float64) for name in ("truthE", "clusterE", "cluster_ENG_CALIB_TOT", "cluster_sumCellE"))
    rules = {
        "truthE is not positive": (e_true <= 0, e_true),
        "cluster_ENG_CALIB_TOT is negative": (e_dep < 0, e_dep),
        "cluster_ENG_CALIB_TOT exceeds truthE": (e_dep > e_true * (1 + SUM_TOLERANCE), e_dep),
        "clusterE differs from cluster_sumCellE": (abs(e_em - e_sum) > SUM_TOLERANCE * np.maximum(abs(e_em), 1.0), e_em),
    }
    for rule, (broken, values) in rules.items():
        if broken.any() and not any(problem.startswith(rule) for problem in problems):
            entry = int(np.flatnonzero(broken)[0])
            problems.append(f"{rule}, first in entry {first + entry}: {values[entry]:.6g} {COLUMNS['truthE'].unit}")
