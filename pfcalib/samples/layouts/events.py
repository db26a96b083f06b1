"""What layouts with one entry an event share: clusters as vectors, and which of the truth particles
beside them a cluster belongs to.
"""

from __future__ import annotations

import contextlib
from typing import Any

import awkward as ak
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from pfcalib.samples.faults import require_equal_lengths
from pfcalib.samples.rootfile import PathLike, reading

_APART = 1000.0  # distance of two events in the search; any two points of one event are closer
_MAX_ETA = 100.0
_NEUTRINOS = (12, 14, 16)
# barcodes from here on are of particles that the simulation of the detector made
FIRST_SECONDARY = 200_000
_LOOK = 1000  # events looked at for the mean number of clusters


class EventReader:
    """Base of readers of events; `_energy` is the branch with one value a cluster."""

    tree: str
    unit = "event"
    _path: PathLike
    _tree: Any
    _energy: str

    def clusters_per_entry(self) -> float:
        """Mean number of clusters of the first events; 1 where they cannot be read."""
        with contextlib.suppress(Exception):
            counts = ak.num(self._tree[self._energy].array(entry_stop=_LOOK))
            return float(ak.mean(counts)) if len(counts) else 1.0
        return 1.0

    def _flat(
        self, array: ak.Array, counts: NDArray[np.int64], start: int, name: str, other: str = ""
    ) -> NDArray[Any]:
        """Values of a vector that must have `counts` of them in each event, as `other` has."""
        stop = start + len(counts)
        with reading(
            self._path, f"{self.tree}: entries {start} to {stop}: {name} cannot be unpacked"
        ):
            own, values = ak.to_numpy(ak.num(array)), ak.to_numpy(ak.flatten(array))
        entry, names = np.arange(start, stop), (name, other or self._energy)
        require_equal_lengths(self._path, self.tree, entry, (own, counts), names)
        return values


def rank(energy: NDArray[np.floating], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Place of each cluster in its event by falling energy.

    >>> rank(np.array([1.0, 3.0, 2.0]), np.array([2, 1])).tolist()
    [1, 0, 0]
    """
    event = np.repeat(np.arange(len(counts)), counts)
    place = np.empty(len(energy), dtype=np.int64)
    place[np.lexsort((-energy, event))] = np.arange(len(energy))
    return place - np.repeat(np.cumsum(counts) - counts, counts)


def makes_clusters(
    event: NDArray[np.int64],
    *,
    pdg_id: NDArray[np.integer] | None = None,
    status: NDArray[np.integer] | None = None,
    barcode: NDArray[np.integer] | None = None,
) -> NDArray[np.bool_]:
    """Particles that may make clusters: stable (status 1), no neutrino, not made by the detector
    simulation; all where an event has none such.

    Parameters
    ----------
    event : array of int64, shape (n_particles,)
    pdg_id, status, barcode : arrays of int, shape (n_particles,), optional
        What is None is not asked for.
    """
    good = np.ones(len(event), dtype=np.bool_)
    good &= True if pdg_id is None else ~np.isin(np.abs(pdg_id), _NEUTRINOS)
    good &= True if status is None else status == 1
    good &= True if barcode is None else barcode < FIRST_SECONDARY
    return good | ~np.isin(event, event[good])


def nearest_particle(
    event: NDArray[np.int64],
    eta: NDArray[np.floating],
    phi: NDArray[np.floating],
    particle_event: NDArray[np.int64],
    particle_eta: NDArray[np.floating],
    particle_phi: NDArray[np.floating],
) -> NDArray[np.int64]:
    """Particle of the same event that is nearest in dR = sqrt(d_eta^2 + d_phi^2), whatever the
    distance.

    Parameters
    ----------
    event, eta, phi : arrays, shape (n_clusters,)
    particle_event, particle_eta, particle_phi : arrays, shape (n_particles,)
        Angles in rad, any period; a particle whose direction is not finite is never the nearest.

    Returns
    -------
    array of int64, shape (n_clusters,)
        Row of the particle; -1 for a cluster of an event without particles.

    >>> zero = np.zeros(2, dtype=np.int64)
    >>> phi, particle_phi = np.array([3.1, 0.1]), np.array([-3.1, 0.0])
    >>> nearest_particle(zero, np.zeros(2), phi, zero, np.zeros(2), particle_phi).tolist()
    [0, 1]
    """
    usable = np.flatnonzero(np.isfinite(particle_eta) & np.isfinite(particle_phi))
    if not len(usable) or not len(event):
        return np.full(len(event), -1, dtype=np.int64)
    tree = cKDTree(
        _points(particle_event[usable], particle_eta[usable], particle_phi[usable]),
        boxsize=[0.0, 0.0, 2.0 * np.pi],
    )
    nearest = usable[tree.query(_points(event, eta, phi))[1]]
    return np.where(particle_event[nearest] == event, nearest, -1)


def _points(
    event: NDArray[np.int64], eta: NDArray[np.floating], phi: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Positions in which events are far apart and phi is in 0 <= phi < 2 pi; values that are not
    finite are set to zero.
    """
    finite = np.nan_to_num(phi, nan=0.0, posinf=0.0, neginf=0.0).astype(np.float64)
    turned = np.mod(finite, 2.0 * np.pi)
    turned[turned >= 2.0 * np.pi] = 0.0  # by rounding
    flat_eta = np.clip(np.nan_to_num(eta, nan=0.0).astype(np.float64), -_MAX_ETA, _MAX_ETA)
    return np.column_stack([_APART * event, flat_eta, turned])
