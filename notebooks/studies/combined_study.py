"""What the study of combined calibrations asks: who classifies best, which combination to take, and
what all calibrations make of a mixed sample.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pfcalib.calibration.inversion import fit_inversion
from pfcalib.calibration.lcw import LcwTables, apply_lcw
from pfcalib.features.scalars import MOMENT_FEATURES, moment_table
from pfcalib.metrics.curve import Estimate, Metric
from pfcalib.metrics.response import SPECIES_NAMES, Comparison, Mask, compare, energy_name
from pfcalib.metrics.roc import auc, auc_difference
from pfcalib.samples.read import PathLike
from pfcalib.samples.select import balance_mask
from pfcalib.training.regressions import fit_trees_apart
from pfcalib.training.regressors import Clusters, EnergyTrees, fit_energy_trees
from pfcalib.training.trees import BoostedTrees, TreesConfig, fit_trees
from studies.combine import (
    SCALES,
    Merit,
    combine_hard,
    combine_soft,
    measure_merit,
    mixed_masks,
    oracle,
)

FloatArray = NDArray[np.float64]
Table = tuple[list[str], list[list[Any]]]  # columns and rows
CUT, ONE_HALF, ONE_NETWORK, CLASS_KNOWN = (
    "best cut",
    "cut at one half",
    "one network",
    "class known",
)


class Energies(NamedTuple):
    """A cluster's probability and energies for one family of models, each (n_clusters,)."""

    p_em: FloatArray
    e_neutral: FloatArray  # GeV
    e_charged: FloatArray  # GeV


class Forests(NamedTuple):
    """Boosted trees on moments for every task of the study."""

    classes: BoostedTrees
    together: EnergyTrees  # of both species
    apart: dict[str, EnergyTrees]  # by pi0 and pic

    def energies(self, clusters: Clusters) -> Energies:
        """What a combination of trees is made of."""
        p_em = self.classes.p_em(moment_table(clusters.columns))
        return Energies(p_em, *(self.apart[key].energy(clusters.columns) for key in ("pi0", "pic")))


def balanced_mask(clusters: Clusters, *, seed: int) -> Mask:
    """As many neutral as charged clusters in each bin of the true energy, chosen by chance; shape
    (n_clusters,).
    """
    return balance_mask(clusters.e_true, clusters.is_em, rng=np.random.default_rng(seed))


def fit_forests(train: Clusters, validation: Clusters, *, config: TreesConfig) -> Forests:
    """Trees that classify, from balanced clusters, and trees that give energies, of both species
    together and of each apart.
    """
    parts = []
    for part in (train, validation):
        kept = balanced_mask(part, seed=config.seed)
        parts.append((moment_table(part.columns)[kept], part.is_em[kept]))
    classes = fit_trees(
        *parts[0], feature_names=MOMENT_FEATURES, validation=(*parts[1], None), config=config
    )
    return Forests(
        classes,
        fit_energy_trees(train, validation, config=config),
        fit_trees_apart(train, validation, config=config),
    )


class Areas(NamedTuple):
    """Areas under the ROC curves of classifiers on the same clusters."""

    balanced: dict[str, Estimate]  # clusters with equal spectra of true energy
    mixed: dict[str, Estimate]  # clusters as they come
    gains: dict[str, Estimate]  # over the first classifier, balanced

    @property
    def table(self) -> Table:
        """Both areas of each classifier, and its gain with error and significance."""
        columns = [
            "classifier",
            "area, balanced",
            "area, as they come",
            f"gain over {next(iter(self.balanced))}",
            "error",
            "significance",
        ]
        areas = {
            name: [_with_error(a) for a in (self.balanced[name], self.mixed[name])]
            for name in self.balanced
        }
        return columns, [
            [name, *both, *(self.gains[name][:3] if name in self.gains else (None,) * 3)]
            for name, both in areas.items()
        ]

    def metrics(self, *, where: str) -> Iterator[Metric]:
        """``auc_<classifier>``, ``auc_mixed_<classifier>`` and
        ``gain_over_<first>_<classifier>``.
        """
        first = next(iter(self.balanced))
        for name, area in self.balanced.items():
            yield (
                f"auc_{name}",
                *area,
                "",
                f"area under the ROC curve of {name}, {where}, balanced in true energy",
            )
            yield (
                f"auc_mixed_{name}",
                *self.mixed[name],
                "",
                f"area under the ROC curve of {name}, {where}, clusters as they come",
            )
        for name, gain in self.gains.items():
            yield (
                f"gain_over_{first}_{name}",
                gain.value,
                gain.error,
                "",
                f"area of {name} minus that of {first}, {where}, balanced, paired",
            )


def compare_classifiers(p_em: Mapping[str, ArrayLike], is_em: ArrayLike, kept: Mask) -> Areas:
    """Areas of all classifiers, and their gains over the first one by the paired test of DeLong.

    Parameters
    ----------
    p_em : mapping of str to array_like, shape (n_clusters,)
    is_em : array_like of bool, shape (n_clusters,)
    kept : ndarray of bool, shape (n_clusters,)
        Balanced clusters, as of `balanced_mask`.
    """
    scores, label = (
        {name: np.asarray(p, dtype=np.float64) for name, p in p_em.items()},
        np.asarray(is_em, dtype=np.bool_),
    )
    first = next(iter(scores))
    gains = {
        name: auc_difference(p[kept], scores[first][kept], label[kept])
        for name, p in scores.items()
        if name != first
    }
    return Areas(
        {name: auc(p[kept], label[kept]) for name, p in scores.items()},
        {name: auc(p, label) for name, p in scores.items()},
        gains,
    )


class Choice(NamedTuple):
    """Combinations on the validation split, and what is taken."""

    merits: dict[str, dict[str, Merit]]  # merits[combination][species]
    scale: str  # in which the mean of `combine_soft` is better
    combination: str  # combined_hard or combined_soft

    @property
    def table(self) -> Table:
        """Resolution of each combination and distance of its median from one, by species."""
        columns = [
            "combination",
            *(
                f"{what}, {key}"
                for what in ("resolution", "abs(median - 1)")
                for key in self.merits[CUT]
            ),
        ]
        numbers = {
            name: [*(v.resolution for v in merits.values()), *(v.bias for v in merits.values())]
            for name, merits in self.merits.items()
        }
        return columns, [
            [name, *map(_with_error, estimates)] for name, estimates in numbers.items()
        ]

    def metrics(self) -> Iterator[Metric]:
        """``validation_iqr_<combination>`` of the mixed clusters."""
        for name, merits in self.merits.items():
            metric = f"validation_iqr_{name.replace(', ', '_').replace(' ', '_')}"
            yield (
                metric,
                *merits["mixed"].resolution,
                "",
                f"mean resolution over bins of ln E_dep, mixed validation split, {name}",
            )


def choose_combination(
    energies: Energies,
    one_network: FloatArray,
    clusters: Clusters,
    *,
    cut: float,
    edges: ArrayLike,
    rng: np.random.Generator,
    min_count: int,
) -> Choice:
    """Try every combination on clusters of the validation split; the smallest mean resolution of
    the mixed ones decides.

    Parameters
    ----------
    energies : Energies
    one_network : ndarray, shape (n_clusters,), GeV
        Of a network that needs no combination, for comparison.
    clusters : Clusters
        Of the validation split.
    cut : float
        The best one of `reporting.catalogue.combine.scan_cut`.
    edges, rng, min_count
        As of `reporting.catalogue.combine.measure_merit`.
    """
    tried = {ONE_HALF: combine_hard(*energies), CUT: combine_hard(*energies, cut)}
    tried |= {f"weighted, {scale}": combine_soft(*energies, scale=scale) for scale in SCALES}
    tried |= {
        ONE_NETWORK: one_network,
        CLASS_KNOWN: oracle(clusters.is_em, energies.e_neutral, energies.e_charged),
    }
    options: dict[str, Any] = {"rng": rng, "min_count": min_count}
    masks = mixed_masks(clusters.is_em)
    merits = {
        n: {k: measure_merit(e[m], clusters.e_true[m], edges, **options) for k, m in masks.items()}
        for n, e in tried.items()
    }
    width = {name: merit["mixed"].resolution.value for name, merit in merits.items()}
    scale = min(SCALES, key=lambda name: width[f"weighted, {name}"])
    return Choice(
        merits,
        scale,
        "combined_soft" if width[f"weighted, {scale}"] <= width[CUT] else "combined_hard",
    )


def combine_inverted(
    validation: Energies, test: Energies, held_out: Clusters, *, cut: float, scale: str
) -> tuple[FloatArray, FloatArray]:  # fmt: skip
    """Hard and weighted combination of the test split in GeV, each after the inversion of the same
    combination of the validation split.

    The inversion puts the median of the mixed clusters at one, as
    `pfcalib.training.regressors.fit_regressor` does for a single network.
    """
    found = []
    pairs = [
        [combine_hard(*e, cut) for e in (validation, test)],
        [combine_soft(*e, scale=scale) for e in (validation, test)],
    ]
    for learnt, energy in pairs:
        inversion = fit_inversion(
            learnt, held_out.e_true, min_count=max(min(50, len(learnt) // 40), 2)
        )
        found.append(inversion.apply(energy))
    return found[0], found[1]


def lcw_with_classes(
    path: PathLike,
    tables: LcwTables,
    likelihood_p: FloatArray,
    clusters: Clusters,
    p_em: FloatArray,
) -> FloatArray:
    """Energies of local cell weighting, GeV, of clusters whose probability comes from another
    classifier.

    Parameters
    ----------
    path : path-like
    tables : LcwTables
    likelihood_p : ndarray, shape (all clusters of the file,)
        Kept for the clusters that are not asked for.
    clusters : Clusters
    p_em : ndarray, shape (n_clusters,)
        Of `clusters`.
    """
    everywhere = likelihood_p.copy()
    everywhere[clusters.rows] = p_em
    return apply_lcw(path, tables, p_em=everywhere).cells[clusters.rows]


class Standing(NamedTuple):
    """Resolution of a calibration over those of others on the mixed clusters, by energy in GeV."""

    against: dict[str, dict[float, Comparison]]  # against[rival][energy]

    @property
    def table(self) -> Table:
        """Ratio and significance of the gain over each rival at each energy, and the number of
        clusters.
        """
        columns = [
            "E_dep / GeV",
            *(
                text
                for rival in self.against
                for text in (f"over {rival}", f"significance over {rival}")
            ),
            "clusters",
        ]
        rows = []
        for energy in next(iter(self.against.values())):
            ones = [by_energy[energy] for by_energy in self.against.values()]
            pairs = [
                (
                    _with_error(Estimate(c.ratio, c.error)),
                    c.significance if np.isfinite(c.significance) else None,
                )
                for c in ones
            ]
            rows.append([energy, *(cell for pair in pairs for cell in pair), ones[0].n_clusters])
        return columns, rows

    def worst_ratio(self, rival: str) -> float:
        """Largest ratio of the energies at which there are clusters; NaN if there are none."""
        ratios = [c.ratio for c in self.against[rival].values() if np.isfinite(c.ratio)]
        return max(ratios, default=np.nan)

    def least_significance(self, rival: str) -> float:
        """Smallest significance of the gain; NaN if there are no clusters at any energy."""
        return min(
            (c.significance for c in self.against[rival].values() if np.isfinite(c.ratio)),
            default=np.nan,
        )


def stand_against(
    e_pred: Mapping[str, FloatArray],
    model: str,
    rivals: Sequence[str],
    e_true: FloatArray,
    energies: Sequence[float],
    *,
    rng: np.random.Generator,
) -> Standing:
    """Paired comparison of one calibration with others on all clusters at each energy, see
    `pfcalib.metrics.response.compare`.
    """
    everything = np.ones(len(e_true), dtype=np.bool_)
    return Standing(
        {
            r: {
                e: compare(e_pred[model], e_pred[r], e_true, everything, e, rng=rng)
                for e in energies
            }
            for r in rivals
        }
    )


def point_table(
    metrics: Mapping[str, Mapping[str, Any]],
    models: Iterable[str],
    energies: Sequence[float],
    *,
    species: Sequence[str] = ("pi0", "pic", "mixed"),
) -> Table:
    """Medians, then resolutions, of each calibration at some energies, from the metrics of a
    report; None where there is no such metric.
    """
    wanted = [
        (quantity, energy_name(energy)) for quantity in ("median", "iqr") for energy in energies
    ]
    columns = [
        "calibration",
        "clusters",
        *(
            f"{name}, {energy:g} GeV"
            for name in ("median", "IQR / (2 median)")
            for energy in energies
        ),
    ]
    rows = [
        [
            model,
            SPECIES_NAMES.get(name, name),
            *(metrics.get(f"{q}_{model}_{name}_{tail}", {}).get("value") for q, tail in wanted),
        ]
        for name, model in itertools.product(species, list(models))
    ]
    return columns, rows


def worst_median(
    metrics: Mapping[str, Mapping[str, Any]], model: str, energies: Sequence[float]
) -> float:
    """Largest abs(median - 1) of the mixed clusters at some energies, from the metrics of a report;
    infinite if there is none.
    """
    names = [f"median_{model}_mixed_{energy_name(energy)}" for energy in energies]
    return max(
        (abs(metrics[name]["value"] - 1.0) for name in names if name in metrics), default=np.inf
    )


def _with_error(estimate: Estimate) -> str | None:
    """A cell of a table; None where nothing is known."""
    return f"{estimate.value:.4f} ± {estimate.error:.4f}" if np.isfinite(estimate.value) else None
