"""Buckets of hits that are near each other in angle, by a search for nearest neighbours.

After arXiv:2101.06428: a query about a hit gives the 20 to 50 hits whose vectors, their places or
what a network makes of them, point in the most similar directions. Tracks are then looked for
inside of a bucket only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.spatial import KDTree

from pfcalib.errors import ConfigError
from pfcalib.tracking.barrelhits import NOISE

KINDS = ("hnsw", "clusters", "exact", "tree")
LINKS, EFFORT = 16, 64  # of the graph that "hnsw" walks: neighbours of a node, nodes kept in mind
PROBED = 8  # clusters that "clusters" looks into


def unit(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """Vectors of length 1, whose distance is 2 sin(angle / 2)."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.ascontiguousarray(vectors / np.maximum(length, 1e-12), np.float32)


def build_index(vectors: NDArray[np.float32], *, kind: str = "hnsw") -> Any:
    """Index of vectors, for `find_buckets`.

    Parameters
    ----------
    vectors : ndarray, shape (n_hits, n), float32
        Of `unit`.
    kind : str
        ``hnsw``, a graph of small worlds (arXiv:1603.09320); ``clusters``, the nearest of as many
        clusters as the square root of the hits; ``exact``, all of them; these three by Faiss
        (arXiv:2401.08281). ``tree``, an exact k-d tree by SciPy.

    Raises
    ------
    ConfigError
        If the kind is unknown or Faiss is missing.
    """
    if kind not in KINDS:
        raise ConfigError(f"index {kind!r} is unknown: expected one of {', '.join(KINDS)}")
    if kind == "tree":
        return KDTree(vectors)
    try:
        import faiss
    except ImportError as error:
        raise ConfigError(
            "Faiss is not installed: pip install 'pfcalib[tracking]', or take the index 'tree'"
        ) from error
    n = vectors.shape[1]
    index: Any
    if kind == "hnsw":
        index = faiss.IndexHNSWFlat(n, LINKS)
        index.hnsw.efSearch = EFFORT
    elif kind == "clusters":
        index = faiss.index_factory(n, f"IVF{max(int(np.sqrt(len(vectors))), 1)},Flat")
        index.cp.min_points_per_centroid = 1
        index.nprobe = PROBED
        index.train(vectors)
    else:
        index = faiss.IndexFlatL2(n)
    index.add(vectors)
    return index


def find_buckets(
    index: Any, vectors: NDArray[np.float32], queries: NDArray[np.integer], size: int
) -> NDArray[np.int64]:
    """Hits of the bucket about each query, nearest first, shape (n_queries, size); -1 where there
    are no more.

    Parameters
    ----------
    index : object
        Of `build_index` for the same vectors.
    vectors : ndarray, shape (n_hits, n)
    queries : ndarray, shape (n_queries,)
        Places of hits.
    size : int
    """
    if isinstance(index, KDTree):
        _, found = index.query(vectors[queries], k=size)
        found = np.asarray(found, np.int64).reshape(len(queries), size)
        return np.where(found < len(vectors), found, -1)
    _, found = index.search(vectors[queries], size)
    return np.asarray(found, np.int64)


def recall(buckets: NDArray[np.int64], exact: NDArray[np.int64]) -> float:
    """Share of the hits of exact buckets that approximate ones hold."""
    pairs = zip(buckets, exact, strict=True)
    return float(np.mean([np.isin(true, mine).mean() for mine, true in pairs]))


@njit(cache=True)
def most_in_a_bucket(
    particle: NDArray[np.int32], buckets: NDArray[np.int64], n_particles: int
) -> NDArray[np.int64]:
    """Largest number of hits that a particle has in one bucket, shape (n_particles,)."""
    most, counts = np.zeros(n_particles, np.int64), np.zeros(n_particles, np.int64)
    for bucket in buckets:
        for hit in bucket:
            if hit >= 0 and particle[hit] != NOISE:
                counts[particle[hit]] += 1
                most[particle[hit]] = max(most[particle[hit]], counts[particle[hit]])
        for hit in bucket:
            if hit >= 0 and particle[hit] != NOISE:
                counts[particle[hit]] = 0
    return most
