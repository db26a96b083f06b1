"""How calibrations fare on samples that they were not derived on: points and matrices, who falls
behind LCW, and the choice of a remedy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pfcalib.calibration.lcw import LcwTables, apply_lcw
from pfcalib.features.targets import flat_weights
from pfcalib.metrics.curve import Estimate, Metric
from pfcalib.metrics.response import (
    Comparison,
    Mask,
    compare,
    energy_name,
    point_metrics,
    species_masks,
)
from pfcalib.training.regressors import Clusters
from studies.domain import TrainedNetwork, TrainedTrees
from studies.domain_recipes import SAMPLES

# samples of which all clusters together are looked at too: one is small, in the other a cluster can
# be of both species
MIXED = ("c", "d")
CENTRAL = 0.68  # share of the clusters that lie within the closeness of truth

FloatArray = NDArray[np.float64]


class Calibrated(NamedTuple):
    """Clusters of one split of a sample with their energies; arrays have shape (n_clusters,)."""

    energy: dict[str, FloatArray]  # GeV, by calibration
    e_true: FloatArray  # GeV
    is_em: NDArray[np.bool_]

    @property
    def species(self) -> dict[str, Mask]:
        """Masks by species: neutral, charged and, as ``mixed``, all."""
        return {**species_masks(self.is_em), "mixed": np.ones(len(self.is_em), dtype=np.bool_)}

    def only(self, *names: str) -> Calibrated:
        """The same clusters with some of the calibrations; those that are not there are left
        out.
        """
        return self._replace(
            energy={name: self.energy[name] for name in names if name in self.energy}
        )


class Point(NamedTuple):
    """One column of a matrix."""

    sample: str
    species: str
    energy: float  # GeV

    @property
    def tail(self) -> str:
        """End of the names of its metrics; those of sample A are named as in the other studies.

        >>> Point("a", "pic", 10.0).tail, Point("c", "pi0", 1.0).tail
        ('pic_10gev', 'pi0_1gev_c')
        """
        return f"{self.species}_{energy_name(self.energy)}{_suffix(self.sample)}"

    @property
    def column(self) -> tuple[str, str, str]:
        """Sample, species and energy as `plots_calibration_studies.plot_ratio_matrix` wants
        them.
        """
        return SAMPLES[self.sample].partition(",")[0], self.species, f"{self.energy:g} GeV"


class Verdict(NamedTuple):
    """A model against a reference on a sample."""

    sample: str
    model: str
    reference: str
    n_points: int
    n_behind: int  # points at which it is significantly behind
    worst: Point  # where its resolution over that of the reference is largest
    ratio: Estimate  # there


def species_of(sample: str) -> tuple[str, ...]:
    """Species that are looked at on a sample."""
    return ("pi0", "pic", "mixed") if sample in MIXED else ("pi0", "pic")


def list_points(energies: Mapping[str, Sequence[float]]) -> list[Point]:
    """Points of all samples, species and energies in GeV; those of a sample side by side."""
    return [
        Point(sample, species, float(energy))
        for sample, values in energies.items()
        for species in species_of(sample)
        for energy in values
    ]


def _suffix(sample: str) -> str:
    return "" if sample == "a" else f"_{sample}"


def calibrate_splits(
    path: Path, sample: str, clusters: Mapping[str, Clusters], *, networks: Mapping[str, TrainedNetwork],
    trees: Mapping[str, TrainedTrees], tables: Mapping[str, LcwTables], splits: Sequence[str] = ("validation", "test"),
) -> dict[str, Calibrated]:  # fmt: skip
    """Energies of the clusters of a sample by all calibrations: ``em``, the tables, the trees and
    the networks.

    Parameters
    ----------
    path : Path
    sample : str
        Its name, which chooses the inversions.
    clusters : mapping of str to Clusters
        By split, see `studies.domain.read_splits`.
    networks, trees : mappings of str to TrainedNetwork and TrainedTrees
    tables : mapping of str to LcwTables
        Their energies after the weighting of cells are taken, whose target is the deposit.
    splits : sequence of str

    Returns
    -------
    dict
        By split.
    """
    weighted = {name: apply_lcw(path, table).cells for name, table in tables.items()}
    result = {}
    for split in splits:
        part = clusters[split]
        energy = {"em": part.e_em, **{name: cells[part.rows] for name, cells in weighted.items()}}
        energy |= {name: model.energy(part.columns, sample=sample) for name, model in trees.items()}
        energy |= {
            name: model.energy(path, sample=sample, split=split) for name, model in networks.items()
        }
        result[split] = Calibrated(energy, part.e_true, part.is_em)
    return result


def sample_metrics(
    calibrated: Mapping[str, Calibrated], points: Sequence[Point], *, rng: np.random.Generator
) -> Iterator[Metric]:
    """`metrics.response.point_metrics` of all samples at the points, the name of the sample at
    the end of the names of all but those of A.

    Parameters
    ----------
    calibrated : mapping of str to Calibrated
        By sample.
    points : sequence of Point
    rng : numpy.random.Generator
    """
    for name, clusters in calibrated.items():
        masks = {
            species: clusters.species[species]
            for species in dict.fromkeys(p.species for p in points if p.sample == name)
        }
        energies = sorted({p.energy for p in points if p.sample == name})
        suffix, where = _suffix(name), f"test split of {SAMPLES[name]}"
        yield from point_metrics(
            clusters.energy, clusters.e_true, masks, energies, where=where, rng=rng, suffix=suffix
        )


def matrix(
    metrics: Mapping[str, Estimate], models: Sequence[str], quantity: str, points: Sequence[Point]
) -> dict[str, list[Estimate]]:
    """Rows of a matrix of metrics by model, one entry a point; NaN where there is none.

    Parameters
    ----------
    metrics : mapping of str to Estimate
        By the full name.
    models : sequence of str
    quantity : str
        ``median``, ``iqr`` or ``ratio_to_lcw``.
    points : sequence of Point

    Examples
    --------
    >>> matrix({"iqr_em_pi0_1gev_b": Estimate(0.1, 0.01)}, ["em"], "iqr", [Point("b", "pi0", 1.0)])
    {'em': [Estimate(value=0.1, error=0.01)]}
    """
    unknown = Estimate(np.nan, np.nan)
    return {
        model: [metrics.get(f"{quantity}_{model}_{point.tail}", unknown) for point in points]
        for model in models
    }


def compare_at(
    calibrated: Mapping[str, Calibrated],
    models: Mapping[str, str],
    reference: str,
    points: Sequence[Point],
    *,
    rng: np.random.Generator,
) -> dict[Point, Comparison]:
    """Does a model resolve better than the reference at the points? Points with too few clusters
    are left out, as are samples without either.

    Parameters
    ----------
    calibrated : mapping of str to Calibrated
        By sample.
    models : mapping of str to str
        Calibration that is asked about, by sample.
    reference : str
    points : sequence of Point
    rng : numpy.random.Generator
    """
    found = {}
    for point in points:
        clusters, model = calibrated.get(point.sample), models.get(point.sample)
        if clusters is None or model not in clusters.energy or reference not in clusters.energy:
            continue
        mask = clusters.species[point.species]
        found[point] = compare(
            clusters.energy[str(model)],
            clusters.energy[reference],
            clusters.e_true,
            mask,
            point.energy,
            rng=rng,
        )
    return {
        point: comparison for point, comparison in found.items() if np.isfinite(comparison.ratio)
    }


def judge(
    calibrated: Mapping[str, Calibrated], models: Mapping[str, str], reference: str, points: Sequence[Point], *,
    n_sigma: float, rng: np.random.Generator,
) -> list[Verdict]:  # fmt: skip
    """`compare_at`, summed up by sample; samples without a point that has enough clusters are left
    out.

    Parameters
    ----------
    calibrated, models, reference, points, rng
        As of `compare_at`.
    n_sigma : float
        Standard deviations by which the model must be behind to count.
    """
    comparisons = compare_at(calibrated, models, reference, points, rng=rng)
    verdicts = []
    for sample, model in models.items():
        here = {
            point: comparison for point, comparison in comparisons.items() if point.sample == sample
        }
        if here:
            worst = max(here, key=lambda point: here[point].ratio)
            n_behind = sum(comparison.significance < -n_sigma for comparison in here.values())
            verdicts.append(
                Verdict(
                    sample,
                    model,
                    reference,
                    len(here),
                    n_behind,
                    worst,
                    Estimate(here[worst].ratio, here[worst].error),
                )
            )
    return verdicts


def closeness(
    e_pred: ArrayLike,
    e_true: ArrayLike,
    is_em: ArrayLike,
    *,
    limits: tuple[float, float],
    rng: np.random.Generator,
    n_bootstrap: int = 100,
) -> Estimate:
    """Distance abs(ln(E / E_true)) within which 68 % of the clusters lie, each species weighted
    flat in ln E: bias and width in one number.

    For a Gaussian response around one it is about its width, for one that is off by much it is
    about the bias.

    Parameters
    ----------
    e_pred, e_true : array_like, shape (n_clusters,), GeV
    is_em : array_like of bool, shape (n_clusters,)
    limits : (float, float), GeV
        Range of true energy.
    rng : numpy.random.Generator
        Of the bootstrap, by random weights (Rubin, Annals of Statistics 9 (1981) 130).
    n_bootstrap : int

    Returns
    -------
    Estimate
        NaN without clusters in range.

    Examples
    --------
    >>> round(closeness([1.1, 0.9, 2.0], [1.0, 1.0, 2.0], [True] * 3, limits=(0.5, 5.0), rng=np.random.default_rng(1)).value, 3)
    0.095
    """
    truth = np.asarray(e_true, dtype=np.float64)
    inside = (truth >= limits[0]) & (truth < limits[1])
    if not inside.any():
        return Estimate(np.nan, np.nan)
    weights = flat_weights(truth[inside], np.asarray(is_em, dtype=np.bool_)[inside])
    distance = np.abs(np.log(np.asarray(e_pred, dtype=np.float64)[inside] / truth[inside]))
    order = np.argsort(distance)
    distance, weights = distance[order], weights[order]
    resampled = [
        _weighted_quantile(distance, weights * rng.standard_exponential(len(weights)))
        for _ in range(n_bootstrap)
    ]
    return Estimate(_weighted_quantile(distance, weights), float(np.std(resampled, ddof=1)))


def _weighted_quantile(ordered: FloatArray, weights: FloatArray) -> float:
    """The value below which the share CENTRAL of the weights lies."""
    cumulative = np.cumsum(weights)
    return float(
        ordered[min(int(np.searchsorted(cumulative, CENTRAL * cumulative[-1])), len(ordered) - 1)]
    )


def closenesses(
    calibrated: Calibrated, *, limits: tuple[float, float], rng: np.random.Generator
) -> dict[str, Estimate]:
    """`closeness` of every calibration."""
    return {
        name: closeness(energy, calibrated.e_true, calibrated.is_em, limits=limits, rng=rng)
        for name, energy in calibrated.energy.items()
    }


def closeness_metrics(found: Mapping[str, Mapping[str, Estimate]]) -> Iterator[Metric]:
    """Metrics ``closeness_<model>_<sample>`` of the test splits, by sample and calibration."""
    for sample, by_model in found.items():
        for model, estimate in by_model.items():
            definition = f"{CENTRAL:.0%} of the clusters lie within it of truth in ln E, {model}, test split of {SAMPLES[sample]}"
            yield (f"closeness_{model}_{sample}", estimate.value, estimate.error, "", definition)


def choose_remedy(found: Mapping[str, Estimate], candidates: Sequence[str]) -> str:
    """The candidate that is closest to truth; call it with what was found on the validation split.

    >>> choose_remedy({"lcw": Estimate(0.1, 0.0), "mixed": Estimate(0.3, 0.0), "tuned": Estimate(0.2, 0.0)}, ["mixed", "tuned"])
    'tuned'
    """
    return min((found[name].value, name) for name in candidates)[1]


def lead(ahead: Estimate, behind: Estimate) -> float:
    """Standard deviations by which the first lies nearer to zero than the second; their errors are
    taken as independent.

    >>> lead(Estimate(-1.0, 0.3), Estimate(2.0, 0.4))
    2.0
    """
    return float((abs(behind.value) - abs(ahead.value)) / np.hypot(ahead.error, behind.error))
