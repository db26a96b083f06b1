"""What a study of classifiers quotes of each: area under the ROC curve, accuracy at cuts,
rejection, and how they compare.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from pfcalib.metrics.roc import (
    Accuracy,
    BinnedEstimate,
    Estimate,
    accuracy,
    auc,
    auc_in_bins,
    rejection,
)

CUTS = (0.5, 0.3)  # on p_em
EM_EFFICIENCY = 0.9
MIN_COUNT = 20  # clusters of either class in a bin
# AUC of a flat network on one layer, ATLAS full simulation, ATL-PHYS-PUB-2020-018
PUBLISHED_LAYERS = {
    "EMB1": 0.970,
    "EMB2": 0.975,
    "EMB3": 0.906,
    "TileBar0": 0.811,
    "TileBar1": 0.799,
    "TileBar2": 0.691,
    "all": 0.986,
}
PUBLISHED = {"likelihood": 0.951, "dnn": 0.986, "cnn": 0.986}  # the same, all six layers

# as `Report.metric` takes it: name, value, error, unit, definition
Metric = tuple[str, float, float, str, str]


class Evaluation(NamedTuple):
    """One classifier on one sample."""

    auc: Estimate
    accuracy: dict[float, Accuracy]  # by cut on p_em
    rejection: Estimate  # of charged clusters at EM_EFFICIENCY


class Crossing(NamedTuple):
    """Number of training clusters from which on one classifier is ahead of another, with its
    error.
    """

    size: float | None  # None: it never is
    error: float | None  # None: unknown, as it is ahead already at the smallest size


def evaluate(p_em: ArrayLike, is_em: ArrayLike) -> Evaluation:
    """Figures of merit of one score.

    Parameters
    ----------
    p_em : array_like, shape (n_clusters,)
        Probability of a neutral pion.
    is_em : array_like of bool, shape (n_clusters,)

    >>> evaluate([0.9, 0.4, 0.6, 0.1], [True, True, False, False]).accuracy[0.3].em.value
    1.0
    """
    cuts = {cut: accuracy(p_em, is_em, cut=cut) for cut in CUTS}
    return Evaluation(auc(p_em, is_em), cuts, rejection(p_em, is_em, em_efficiency=EM_EFFICIENCY))


def evaluation_metrics(
    evaluations: Mapping[str, Evaluation], *, where: str, suffix: str = "", auc_only: bool = False
) -> Iterator[Metric]:
    """The metrics of a report: ``auc_<name>``, ``accuracy_<name>_p50`` with ``_em`` and ``_had``,
    ``rejection_<name>_90``, each with a suffix.

    Parameters
    ----------
    evaluations : mapping of str to Evaluation
        By classifier.
    where : str
        Name of the sample, for the definitions.
    suffix : str
        Of the names.
    auc_only : bool
        Nothing but the areas.

    >>> metrics = evaluation_metrics({"dnn": evaluate([0.9, 0.4, 0.6, 0.1], [1, 1, 0, 0])}, where="toy")
    >>> [metric[0] for metric in metrics][:3]
    ['auc_dnn', 'accuracy_dnn_p50', 'accuracy_dnn_p50_em']
    """
    for name, evaluation in evaluations.items():
        yield (
            f"auc_{name}{suffix}",
            *evaluation.auc,
            "",
            f"area under the ROC curve of {name}, {where}",
        )
        if auc_only:
            continue
        for cut, shares in evaluation.accuracy.items():
            for part, of, share in (
                ("", "all", shares.all),
                ("_em", "neutral", shares.em),
                ("_had", "charged", shares.had),
            ):
                definition = (
                    f"share of {of} clusters on the right side of p_em >= {cut}, {name}, {where}"
                )
                yield (f"accuracy_{name}_p{100 * cut:.0f}{part}{suffix}", *share, "", definition)
        definition = f"one over the share of charged clusters kept with {EM_EFFICIENCY:.0%} of the neutral ones, {name}, {where}"
        yield (
            f"rejection_{name}_{100 * EM_EFFICIENCY:.0f}{suffix}",
            *evaluation.rejection,
            "",
            definition,
        )


def auc_by_model(
    p_em: Mapping[str, ArrayLike], is_em: ArrayLike, variable: ArrayLike, edges: ArrayLike
) -> dict[str, BinnedEstimate]:
    """AUC of each classifier in bins of a variable, NaN where a class has less than MIN_COUNT
    clusters.
    """
    return {
        name: auc_in_bins(score, is_em, variable, edges, min_count=MIN_COUNT)
        for name, score in p_em.items()
    }


def crossing_size(sizes: Sequence[float], difference: Sequence[Estimate]) -> Crossing:
    """From how many training clusters on a network is ahead, linear in the logarithm of the size.

    Parameters
    ----------
    sizes : sequence of float
        Rising numbers of training clusters.
    difference : sequence of Estimate
        AUC of the network minus that of its rival at each size.

    >>> crossing_size([10, 1000], [Estimate(-0.1, 0.01), Estimate(0.1, 0.01)]).size
    100.0
    >>> crossing_size([10, 1000], [Estimate(0.1, 0.01), Estimate(-0.1, 0.01)]).size is None
    True
    """
    x, y = (
        np.log10(np.asarray(sizes, dtype=np.float64)),
        np.array([estimate.value for estimate in difference]),
    )
    behind = np.flatnonzero(y <= 0.0)
    if not len(behind):
        return Crossing(float(sizes[0]), None)
    last = int(behind[-1])
    if last == len(y) - 1:
        return Crossing(None, None)
    share = -y[last] / (y[last + 1] - y[last])
    size = float(np.round(10.0 ** (x[last] + share * (x[last + 1] - x[last])), 6))
    # of the line at the crossing
    spread = np.hypot((1.0 - share) * difference[last].error, share * difference[last + 1].error)
    slope = (y[last + 1] - y[last]) / (x[last + 1] - x[last])
    return Crossing(size, float(size * np.log(10.0) * spread / slope))
