"""Clusters that a trained network is asked about, held as arrays so that they can be changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pfcalib.deploy.export import predict
from pfcalib.features.targets import TargetConfig
from pfcalib.metrics.performance import HALF_WIDTH, MIN_COUNT, species_masks
from pfcalib.samples.read import PathLike
from pfcalib.samples.select import SelectionConfig
from pfcalib.training.networks import Network, open_stream
from pfcalib.training.regressors import Regressor, output_energy

FloatArray = NDArray[np.float64]
Rows = NDArray[np.int64]
_PIECE = 2000  # clusters read at once


class Probe(NamedTuple):
    """Clusters that a network is asked about."""

    inputs: dict[str, NDArray[np.float32]]  # as the network sees them, each (n_clusters, ...)
    cluster_e: FloatArray  # (n_clusters,) GeV
    e_true: FloatArray  # (n_clusters,) GeV, as the target of the network defines it
    is_em: NDArray[np.bool_]


def read_probe(
    network: Network | Regressor, path: PathLike, *, rng: np.random.Generator, split: str = "test", n_clusters: int | None = None,
    select: SelectionConfig | None = None,
) -> Probe:  # fmt: skip
    """Clusters of a split of a sample, in the order of the file.

    Parameters
    ----------
    network : Network or Regressor
        Decides on the kind of inputs and, unless select is given, on the selection.
    path : path-like
    rng : numpy.random.Generator
    split : str
    n_clusters : int, optional
        So many of them, drawn by chance; all by default, at four bytes a pixel.
    select : SelectionConfig, optional
    """
    config = _plain(network).config
    stream = open_stream(path, config, split=split, select=select)
    chosen = np.arange(stream.n_clusters)
    if n_clusters is not None and n_clusters < len(chosen):
        chosen = np.sort(rng.choice(len(chosen), n_clusters, replace=False))
    parts = [stream.batch(chosen[i : i + _PIECE])[0] for i in range(0, len(chosen), _PIECE)]
    target = config.target or TargetConfig()
    e_true = target.energy_true({name: stream.column(name)[chosen] for name in target.columns})
    inputs = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return Probe(
        inputs,
        stream.column("clusterE")[chosen].astype(np.float64),
        e_true,
        stream.labels[chosen, 1] > 0.5,
    )


def _plain(network: Network | Regressor) -> Network:
    return network.network if isinstance(network, Regressor) else network


def ask(
    network: Network | Regressor, inputs: Mapping[str, NDArray[np.float32]], cluster_e: FloatArray
) -> FloatArray:
    """Energies in GeV of a regression, with its inversion if it has one, or probabilities of a
    neutral pion of a classifier.
    """
    plain = _plain(network)
    output = predict(plain.model, inputs)
    if plain.config.target is None:
        return output[:, 1].astype(np.float64)
    energy = output_energy(plain.config, output, cluster_e)
    return (
        network.inversion.apply(energy)
        if isinstance(network, Regressor) and network.inversion is not None
        else energy
    )


def rows_near(
    probe: Probe,
    energies: Sequence[float],
    *,
    half_width: float = HALF_WIDTH,
    min_count: int = MIN_COUNT,
) -> list[tuple[str, float, Rows]]:
    """Species, energy and rows of the clusters near each true energy, where they are enough.

    Parameters
    ----------
    probe : Probe
    energies : sequence of float, GeV
    half_width : float
        Of the bin around each, in log10.
    min_count : int
        Clusters that it needs; it is left out otherwise.
    """
    log_e = np.log10(np.maximum(probe.e_true, 1e-9))
    bins = []
    for species, mask in species_masks(probe.is_em).items():
        for energy in energies:
            rows = np.flatnonzero(mask & (np.abs(log_e - np.log10(energy)) < half_width))
            bins += [(species, energy, rows)] if len(rows) >= min_count else []
    return bins
