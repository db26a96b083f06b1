"""Small files of every layout that pfcalib reads: clusters of a few simulated pions, or packaged
Geant4 showers.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import awkward as ak
import h5py
import numpy as np
import uproot
from numpy.typing import NDArray

from pfcalib.cache import new_file
from pfcalib.columns import JAGGED, LAYER_NAMES, SUBDETECTORS
from pfcalib.errors import ConfigError
from pfcalib.features.images import build_images
from pfcalib.geometry import WINDOW
from pfcalib.samples.layouts.calochallenge import ENERGIES, PIONS, SHOWERS
from pfcalib.samples.layouts.image_tree import IMAGES
from pfcalib.samples.layouts.mltree import CLUSTER, EVENT_TREE, TRUTH
from pfcalib.samples.packaged import packaged_sample
from pfcalib.samples.read import read_sample
from pfcalib.samples.schema import CLUSTER_TREE, GEO_TREE, Sample
from pfcalib.samples.showerfile import Showers, read_showers, write_showers
from pfcalib.simulation.produce import ProduceConfig, produce_sample

N_EVENTS = 40
_MEV = 1e3  # MeV in a GeV


def write_example(
    layout: str, path: str | Path, *, n_events: int = N_EVENTS, seed: int = 1
) -> Path:
    """Write a small file of a layout; returns its path.

    MLTree, PHYSLITE and EDM4hep are RNTuples, as uproot writes no TTree of nested vectors.

    Parameters
    ----------
    layout : str
        Of `EXAMPLES`.
    path : path-like
        File to be written; an older one is replaced.
    n_events : int
        Pions to be shot at the barrel, or packaged Geant4 showers.
    seed : int

    Raises
    ------
    ConfigError
        If there is no such layout.
    """
    if layout not in EXAMPLES:
        raise ConfigError(f"no example of {layout!r}; there are: {', '.join(EXAMPLES)}")
    with new_file(path) as temporary:
        if layout in SHOWER_WRITERS:
            showers, metadata = read_showers(packaged_sample("geant4_pions"), WINDOW)
            charged = np.abs(showers.pdg_id) == 211
            chosen = charged & (np.cumsum(charged) <= n_events)
            SHOWER_WRITERS[layout](temporary, showers.select(chosen), metadata)
        else:
            with tempfile.TemporaryDirectory() as folder:
                config = ProduceConfig(n_events=n_events, e_min=1.0, e_max=200.0, seed=seed)
                sample = produce_sample(Path(folder) / "pions.root", config)
                if layout == "pfcalib":
                    temporary.write_bytes(sample.read_bytes())
                else:
                    CLUSTER_WRITERS[layout](temporary, read_sample(sample))
    return Path(path)


def _write_mltree(path: Path, sample: Sample) -> None:
    counts, first = _events(sample)
    ones = np.ones(len(counts), dtype=np.int64)
    tree = {"eventNumber": sample["eventNumber"][first], "nCluster": sample["nCluster"][first]}
    for column, branch in CLUSTER.items():
        if column in sample.scalars:
            tree[branch] = ak.unflatten(sample[column], counts)
    for column, branch in TRUTH.items():
        tree[branch] = ak.unflatten(sample[column][first], ones)
    for name in JAGGED:
        tree[name] = ak.unflatten(ak.unflatten(sample.cells[name], np.diff(sample.offsets)), counts)
    geo = {name: ak.unflatten(v, [len(v)]) for name, v in sample.geo.arrays().items()}
    with uproot.recreate(path) as file:
        file[EVENT_TREE], file[GEO_TREE] = tree, geo


def _write_images(path: Path, sample: Sample) -> None:
    images = build_images(sample, layers=LAYER_NAMES)
    branches = dict(zip(IMAGES, images.values(), strict=True))
    branches |= {name: array for name, array in sample.scalars.items() if "_E_" not in name}
    with uproot.recreate(path) as file:
        types = {name: (array.dtype, array.shape[1:]) for name, array in branches.items()}
        file.mktree(CLUSTER_TREE, types).extend(branches)


def _write_physlite(path: Path, sample: Sample) -> None:
    counts, first = _events(sample)
    values = {f"raw{name}": sample[f"cluster{name}"] for name in ("E", "Eta", "Phi")}
    values |= {name.replace("raw", "cal"): array for name, array in values.items()}
    for name in ("CENTER_MAG", "CENTER_LAMBDA", "ISOLATION", "LATERAL", "LONGITUDINAL"):
        values[name] = sample[f"cluster_{name}"]
    tree = {
        f"CaloCalTopoClustersAuxDyn:{name}": ak.unflatten(
            array * np.float32(_MEV if name.endswith("E") else 1.0), counts
        )
        for name, array in values.items()
    }
    with uproot.recreate(path) as file:
        file["EventData"] = tree | {"EventInfoAuxDyn:eventNumber": sample["eventNumber"][first]}


def _write_edm4hep(path: Path, sample: Sample) -> None:
    counts, first = _events(sample)
    ones, n = np.ones(len(counts), dtype=np.int64), len(sample)
    cells = np.diff(sample.offsets)
    before = np.cumsum(counts) - counts
    place = np.arange(n) - np.repeat(before, counts)  # in the event
    hits = sample.offsets[1:] - np.repeat(sample.offsets[before], counts)  # up to it in the event
    size = len(SUBDETECTORS)

    def vector(length: NDArray[Any], eta: NDArray[Any], phi: NDArray[Any]) -> ak.Array:
        """Components of vectors of some transverse length."""
        parts = {"x": length * np.cos(phi), "y": length * np.sin(phi), "z": length * np.sinh(eta)}
        return ak.zip({name: part.astype(np.float32) for name, part in parts.items()})

    eta, phi = sample["clusterEta"], sample["clusterPhi"]
    clusters = {
        "energy": sample["clusterE"],
        "position": vector(sample["cluster_CENTER_MAG"] / np.cosh(eta), eta, phi),
        "hits_begin": (hits - cells).astype(np.uint32),
        "hits_end": hits.astype(np.uint32),
        "subdetectorEnergies_begin": (size * place).astype(np.uint32),
        "subdetectorEnergies_end": (size * (place + 1)).astype(np.uint32),
    }
    layers = [sample[f"cluster_E_{name}"] for name in LAYER_NAMES]
    energies = np.zeros((n, size), dtype=np.float32)
    energies[:, 0], energies[:, 1] = np.sum(layers[:4], axis=0), np.sum(layers[4:], axis=0)
    truth = {name: sample[f"truth{name}"][first] for name in ("E", "Pt", "Eta", "Phi", "PdgId")}
    momentum = truth["Pt"] * np.cosh(truth["Eta"], dtype=np.float64)
    particles = {
        "PDG": truth["PdgId"],
        "generatorStatus": ones.astype(np.int32),
        "mass": np.sqrt(np.maximum(truth["E"].astype(np.float64) ** 2 - momentum**2, 0.0)),
        "momentum": vector(truth["Pt"], truth["Eta"], truth["Phi"]),
    }

    def collection(fields: dict[str, Any], lengths: NDArray[Any]) -> ak.Array:
        return ak.unflatten(ak.zip(fields, depth_limit=1), lengths)

    def ids(index: NDArray[Any], number: int) -> ak.Array:
        numbers = np.full(n, number, dtype=np.uint32)
        return collection({"index": index.astype(np.int32), "collectionID": numbers}, counts)

    with uproot.recreate(path) as file:
        file["events"] = {
            "EventHeader": collection({"eventNumber": sample["eventNumber"][first]}, ones),
            "PandoraClusters": collection(clusters, counts),
            "_PandoraClusters_subdetectorEnergies": ak.unflatten(energies.ravel(), size * counts),
            "MCParticles": collection(particles, ones),
            "ClusterMCTruthLink": collection({"weight": np.ones(n, dtype=np.float32)}, counts),
            "_ClusterMCTruthLink_from": ids(place, 1),
            "_ClusterMCTruthLink_to": ids(np.zeros(n), 2),
        }


def _write_calochallenge(path: Path, showers: Showers, metadata: dict[str, Any]) -> None:
    """Cells as voxels of the published binning of pions, about the axis of the particle; MeV."""
    owner = np.repeat(np.arange(len(showers.pdg_id)), np.diff(showers.offsets))
    voxels = np.zeros((len(showers.pdg_id), PIONS.n_voxels), dtype=np.float32)
    radius = WINDOW.r[showers.cell]
    x = radius * (WINDOW.eta[showers.cell] - showers.eta[owner])
    y = radius * (WINDOW.phi[showers.cell] - showers.phi[owner])
    r, alpha = np.hypot(x, y), np.arctan2(y, x)
    for layer, start in zip(PIONS.layers, PIONS.starts, strict=True):
        ring = np.searchsorted(layer.r_edges, r, side="right") - 1
        sector = np.minimum((alpha + np.pi) / (2.0 * np.pi) * layer.n_alpha, layer.n_alpha - 1)
        n_rings = len(layer.r_edges) - 1
        here = (WINDOW.sampling[showers.cell] == layer.sampling) & (ring < n_rings)
        place = start + sector.astype(int) * n_rings + ring
        np.add.at(voxels, (owner[here], place[here]), _MEV * showers.signal[here])
    with h5py.File(path, "w") as file:
        file[ENERGIES], file[SHOWERS] = _MEV * showers.e_true[:, None], voxels


def _events(sample: Sample) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Clusters of each event, which lie together, and the first of them."""
    _, first, counts = np.unique(sample["eventNumber"], return_index=True, return_counts=True)
    return counts, first


CLUSTER_WRITERS: dict[str, Callable[[Path, Sample], None]] = {
    "mltree": _write_mltree,
    "images": _write_images,
    "physlite": _write_physlite,
    "edm4hep": _write_edm4hep,
}
SHOWER_WRITERS: dict[str, Callable[[Path, Showers, dict[str, Any]], None]] = {
    "calochallenge": _write_calochallenge,
    "showers": lambda path, showers, metadata: write_showers(path, showers, WINDOW, metadata),
}
EXAMPLES = {  # layout: what is in the file
    "pfcalib": "clusters with cells and truth, one entry each",
    "mltree": "the same clusters, one entry an event",
    "images": "the same clusters, as images of the layers",
    "physlite": "the same clusters without cells, in MeV, as ATLAS writes them",
    "edm4hep": "the same clusters, with subdetectors and truth links, as Key4hep writes them",
    "calochallenge": "Geant4 showers of charged pions in voxels (HDF5)",
    "showers": "the same showers as cells, before noise",
}
