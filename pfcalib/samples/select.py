"""Which clusters a study uses: cuts, one split by event, and two classes with the same spectrum of
deposited energy.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pfcalib.errors import ConfigError
from pfcalib.samples.schema import column_of, is_em
from pfcalib.samples.split import FRACTIONS, split_index, split_of

Scalars = Mapping[str, NDArray[Any]]
Balance = Literal["subsample", "weight"] | None
# GeV, ten bins a decade; what lies outside counts in the first or last bin
BALANCE_EDGES = np.logspace(-1.0, 3.5, 46)
SPECIES = ("all", "neutral", "charged")
# what `choose_clusters` looks at
SELECT_COLUMNS = ("eventNumber", "truthPdgId", "clusterE", "clusterEta", "cluster_ENG_CALIB_TOT")


@dataclasses.dataclass(frozen=True)
class SelectionConfig:
    """Cuts on clusters; a cluster at a limit is kept.

    Parameters
    ----------
    min_cluster_e, max_cluster_e : float, GeV
        Energy at the EM scale. Classification uses clusters above 0.5 GeV (ATL-PHYS-PUB-2020-018).
    max_abs_eta : float
    min_deposit : float, GeV
        Lowest cluster_ENG_CALIB_TOT; regression uses 0.2 GeV.
    species : str
        ``all``, ``neutral`` or ``charged``: by the particle that made the cluster.
    """

    min_cluster_e: float = 0.5
    max_cluster_e: float = np.inf
    max_abs_eta: float = 0.7
    min_deposit: float = -np.inf
    species: str = "all"

    def __post_init__(self) -> None:
        if not self.min_cluster_e > 0.0:
            raise ConfigError(
                "min_cluster_e must be positive, as images are divided by the energy of the "
                f"cluster; got {self.min_cluster_e}"
            )
        if not (self.max_cluster_e > self.min_cluster_e and self.max_abs_eta > 0.0):
            raise ConfigError(f"the selection keeps nothing: {self}")
        if self.species not in SPECIES:
            raise ConfigError(f"species must be one of {', '.join(SPECIES)}, got {self.species!r}")

    def mask(self, scalars: Scalars) -> NDArray[np.bool_]:
        """True for the clusters that pass."""
        energy = column_of(scalars, "clusterE")
        keep = (energy >= self.min_cluster_e) & (energy <= self.max_cluster_e)
        keep &= np.abs(column_of(scalars, "clusterEta")) <= self.max_abs_eta
        keep &= column_of(scalars, "cluster_ENG_CALIB_TOT") >= self.min_deposit
        return (
            keep
            if self.species == "all"
            else keep & (is_em(column_of(scalars, "truthPdgId")) == (self.species == "neutral"))
        )


class Choice(NamedTuple):
    """Clusters of a study: their rows, in rising order, and their weights (all one unless balanced
    by weight).
    """

    rows: NDArray[np.signedinteger[Any]]  # int32 where it suffices
    weights: NDArray[np.float32]


def choose_clusters(
    scalars: Scalars,
    *,
    split: str,
    select: SelectionConfig | None = None,
    balance: Balance = None,
    seed: int = 1,
    fractions: Sequence[float] = FRACTIONS,
    salt: int = 0,
) -> Choice:
    """Clusters of one split that pass the cuts, with the two classes balanced if asked for.

    Parameters
    ----------
    scalars : mapping of str to array, shape (n_clusters,)
        With the columns `SELECT_COLUMNS`.
    split : "train", "validation", "test" or "all"
    select : SelectionConfig
        Cuts; the defaults of the class if None.
    balance : "subsample", "weight" or None
        How the spectra of cluster_ENG_CALIB_TOT of the two classes are made equal, in the bins
        `BALANCE_EDGES`: by leaving out clusters of the class that has more in a bin (as published),
        by weights, or not at all.
    seed : int
        Decides which clusters are left out; the same seed leaves out the same ones.
    fractions, salt
        Of the split, see `split_of`.

    Raises
    ------
    ConfigError
        If split or balance is unknown.
    """
    return choose_from_chunks(
        [scalars],
        split=split,
        select=select,
        balance=balance,
        seed=seed,
        fractions=fractions,
        salt=salt,
    )


def choose_from_chunks(
    chunks: Iterable[Scalars],
    *,
    split: str,
    select: SelectionConfig | None = None,
    balance: Balance = None,
    seed: int = 1,
    fractions: Sequence[float] = FRACTIONS,
    salt: int = 0,
) -> Choice:
    """What `choose_clusters` gives for the chunks taken together, of which one at a time is in
    memory.
    """
    if balance not in ("subsample", "weight", None):
        raise ConfigError(f"balance must be 'subsample', 'weight' or None, got {balance!r}")
    number = None if split == "all" else split_index(split)
    rows, deposits, classes, seen = (
        [np.zeros(0, dtype=np.int32)],
        [np.zeros(0, dtype=np.float32)],
        [np.zeros(0, dtype=np.bool_)],
        0,
    )
    for scalars in chunks:
        keep = (select or SelectionConfig()).mask(scalars)
        if number is not None:
            keep &= (
                split_of(column_of(scalars, "eventNumber"), fractions=fractions, salt=salt)
                == number
            )
        kept = np.flatnonzero(keep)
        rows.append((kept + seen).astype(row_type(seen + len(keep))))
        deposits.append(column_of(scalars, "cluster_ENG_CALIB_TOT")[kept])
        classes.append(is_em(column_of(scalars, "truthPdgId")[kept]))
        seen += len(keep)
    chosen, deposit, em = np.concatenate(rows), np.concatenate(deposits), np.concatenate(classes)
    if balance == "weight":
        return Choice(chosen, balance_weights(deposit, em).astype(np.float32))
    if balance == "subsample":
        chosen = chosen[balance_mask(deposit, em, rng=np.random.default_rng(seed))]
    return Choice(chosen, np.broadcast_to(np.float32(1.0), chosen.shape))


def row_type(n: int) -> type[np.signedinteger[Any]]:
    """The narrowest of int32 and int64 that counts to n.

    >>> row_type(10**6).__name__, row_type(10**10).__name__
    ('int32', 'int64')
    """
    return np.int32 if n <= np.iinfo(np.int32).max else np.int64


def balance_mask(
    deposit: ArrayLike, em: ArrayLike, *, rng: np.random.Generator, edges: ArrayLike = BALANCE_EDGES
) -> NDArray[np.bool_]:
    """Keep as many clusters of either class in each bin of deposited energy, chosen by chance.

    Parameters
    ----------
    deposit : array_like, shape (n,), GeV
    em : array_like of bool, shape (n,)
        Class of each cluster.
    rng : numpy.random.Generator
    edges : array_like, GeV
        Rising bin edges.

    >>> balance_mask([1, 1, 1, 50], [True, True, False, True], rng=np.random.default_rng(1)).sum()
    np.int64(2)
    """
    place, counts = _histogram(deposit, em, edges)
    order = np.lexsort((rng.random(len(place)), place))
    starts = np.concatenate([[0], np.cumsum(counts.ravel())[:-1]])
    rank = np.empty(len(place), dtype=np.int64)
    rank[order] = np.arange(len(place)) - starts[place[order]]
    return rank < np.tile(counts.min(axis=0), 2)[place]


def balance_weights(
    deposit: ArrayLike, em: ArrayLike, *, edges: ArrayLike = BALANCE_EDGES
) -> NDArray[np.float64]:
    """Weights that give both classes the mean of their two spectra; zero in a bin that only one
    class fills.

    The mean of the weights is one. Parameters as in `balance_mask`.
    """
    place, counts = _histogram(deposit, em, edges)
    target = np.where(counts.min(axis=0) > 0, counts.mean(axis=0), 0.0)
    weights = (target / np.maximum(counts, 1)).ravel()[place]
    return weights / weights.mean() if weights.any() else weights


def _histogram(
    deposit: ArrayLike, em: ArrayLike, edges: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Flat place (class, bin) of each cluster, and the counts, shape (2, n_bins)."""
    n_bins = len(np.asarray(edges)) - 1
    bins = np.clip(np.searchsorted(edges, deposit, side="right") - 1, 0, n_bins - 1)
    place = np.asarray(em, dtype=np.int64) * n_bins + bins
    return place, np.bincount(place, minlength=2 * n_bins).reshape(2, n_bins)
