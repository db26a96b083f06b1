"""Distances of two samples of showers or jets by a few quantities of each: Frechet and kernel
physics distance (arXiv:2211.10295), and the separation of two histograms.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pfcalib.metrics.curve import Estimate

F64 = NDArray[np.float64]
N_SIZES = 10  # of samples, from which is extrapolated
SMALLEST = 0.4  # of these, as a share of all; published is 20,000 of 50,000
N_DRAWS = 8  # of each size, published are 20
DEGREE = 4  # of the polynomial kernel
N_PARTS = 10  # that are left out in turn for the error


def frechet_distance(a: F64, b: F64) -> float:
    """Squared distance of the Gaussians with the means and covariances of two samples (n, d),
    |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)).

    >>> x = np.array([[0.0, 0.0], [2.0, 2.0], [0.0, 2.0], [2.0, 0.0]])
    >>> round(frechet_distance(x, x + [3.0, 4.0]), 9)
    25.0
    """
    c_a, c_b = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b))
    values, axes = np.linalg.eigh(c_a)
    root = (axes * np.sqrt(np.maximum(values, 0.0))) @ axes.T
    # the eigenvalues of C_a C_b are those of this symmetric matrix
    mixed = np.linalg.eigvalsh(root @ c_b @ root)
    away = a.mean(axis=0) - b.mean(axis=0)
    overlap = np.sqrt(np.maximum(mixed, 0.0)).sum()
    return float(away @ away + np.trace(c_a) + np.trace(c_b) - 2.0 * overlap)


def frechet_physics_distance(
    reference: ArrayLike, sample: ArrayLike, *, rng: np.random.Generator
) -> Estimate:
    """Frechet distance extrapolated to samples without end: a straight line in 1 / n through the
    means over samples of n of the events, drawn without replacement.

    Quantities are divided by their largest absolute value in the reference. The published way draws
    with replacement, which leaves what the finite whole adds. The error is that of the jackknife.

    Parameters
    ----------
    reference, sample : array_like, shape (n_events, n_quantities)
        Equally many or not.
    rng : numpy.random.Generator
    """
    a, b = scaled(reference, sample)
    parts = [rng.permutation(len(x)) % N_PARTS for x in (a, b)]
    left_out = np.array([
        _extrapolated(a[parts[0] != k], b[parts[1] != k], np.random.default_rng(7))
        for k in range(N_PARTS)
    ])  # fmt: skip
    error = np.sqrt((N_PARTS - 1) / N_PARTS * np.sum((left_out - np.mean(left_out)) ** 2))
    return Estimate(_extrapolated(a, b, np.random.default_rng(7)), float(error))


def _extrapolated(a: F64, b: F64, rng: np.random.Generator) -> float:
    most = min(len(a), len(b))
    sizes = (1.0 / np.linspace(1.0 / (SMALLEST * most), 1.0 / most, N_SIZES)).astype(np.int64)
    means = [
        np.mean(
            [
                frechet_distance(*(rng.permutation(x)[:n] for x in (a, b)))
                for _ in range(N_DRAWS if n < most else 1)
            ]
        )
        for n in sizes
    ]
    return float(np.polynomial.polynomial.polyfit(1.0 / sizes, means, 1)[0])


def kernel_physics_distance(
    reference: ArrayLike, sample: ArrayLike, *, rng: np.random.Generator, n: int = 5000
) -> Estimate:
    """Median over ten batches of n events of the unbiased squared maximum mean discrepancy with the
    kernel (x y / d + 1)^4, and half of the central 68 % of them.

    Parameters
    ----------
    reference, sample : array_like, shape (n_events, n_quantities)
    rng : numpy.random.Generator
    n : int
        Of a batch; half of the events where there are fewer.
    """
    a, b = scaled(reference, sample)
    n = min(n, len(a) // 2, len(b) // 2)
    found = [_discrepancy(*(rng.permutation(x)[:n] for x in (a, b))) for _ in range(10)]
    low, middle, high = np.quantile(found, (0.16, 0.5, 0.84))
    return Estimate(float(middle), float(0.5 * (high - low)))


def _discrepancy(a: F64, b: F64) -> float:
    n, d = a.shape

    def kernel(x: F64, y: F64) -> F64:
        return np.asarray((x @ y.T / d + 1.0) ** DEGREE)

    same = [kernel(x, x) for x in (a, b)]
    pairs = sum((k.sum() - np.trace(k)) / (n * (n - 1)) for k in same)
    return float(pairs - 2.0 * kernel(a, b).mean())


def scaled(reference: ArrayLike, sample: ArrayLike) -> tuple[F64, F64]:
    """Both over the largest absolute values of the reference."""
    a, b = (np.asarray(x, dtype=np.float64) for x in (reference, sample))
    largest = np.abs(a).max(axis=0)
    largest = np.where(largest > 0.0, largest, 1.0)
    return a / largest, b / largest


def separation(reference: ArrayLike, sample: ArrayLike) -> float:
    """Triangular discrimination sum (a - b)^2 / (a + b) / 2 of two histograms, each normalised
    (arXiv:2009.03796, equation 15): 0 for equal ones, 1 where they do not overlap.

    >>> separation([1, 1, 0], [2, 2, 0]), separation([1, 0], [0, 3])
    (0.0, 1.0)
    """
    a, b = (np.asarray(x, dtype=np.float64) for x in (reference, sample))
    a, b = a / a.sum(), b / b.sum()
    both = a + b
    return float(0.5 * np.sum(np.divide((a - b) ** 2, both, out=np.zeros_like(a), where=both > 0)))
