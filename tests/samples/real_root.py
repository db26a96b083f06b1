"""Files as ROOT itself writes them: the MLTree layout with its awkward cases, from a sample whose
content is known.

ROOT runs in a process of its own. `write_mltree` makes a whole file, `mltree_content` what is in
it, `write_trees` any trees.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import awkward as ak
import numpy as np
import pytest
from factories import make_sample

from pfcalib.columns import CELL_GEO
from pfcalib.geometry import WINDOW, Grid
from pfcalib.samples.schema import Sample

MISSING = -999999999.0  # an extrapolation of a track that does not reach the layer
TRACK_LAYERS = ("PreSamplerB", "EMB1", "EMB2", "EMB3", "TileBar0", "TileBar1", "TileBar2")
JETS = ("AntiKt4EMTopoJets", "AntiKt4LCTopoJets", "AntiKt4TruthJets")
MLTREE_CLUSTERS = {  # branch of MLTree: column of pfcalib
    "cluster_E": "clusterE",
    "cluster_Pt": "clusterPt",
    "cluster_Eta": "clusterEta",
    "cluster_Phi": "clusterPhi",
    "cluster_nCells": "cluster_nCells",
    "cluster_ENG_CALIB_TOT": "cluster_ENG_CALIB_TOT",
    "cluster_ENG_CALIB_OUT_T": "cluster_ENG_CALIB_OUT_T",
    "cluster_ENG_CALIB_DEAD_TOT": "cluster_ENG_CALIB_DEAD_TOT",
    "cluster_CENTER_MAG": "cluster_CENTER_MAG",
    "cluster_FIRST_ENG_DENS": "cluster_FIRST_ENG_DENS",
    "cluster_CENTER_LAMBDA": "cluster_CENTER_LAMBDA",
    "cluster_ISOLATION": "cluster_ISOLATION",
}
Branch = tuple[str, Any]  # type as the script below knows it, one value an entry
Trees = Mapping[str, Mapping[str, Branch]]

_SCRIPT = """
import array, json, sys
import ROOT

def place(kind):
    if kind.startswith("vector<vector<"):
        return ROOT.std.vector[ROOT.std.vector[kind[14:-2]]]()
    if kind.startswith("vector<"):
        return ROOT.std.vector[kind[7:-1]]()
    if kind == "string":
        return ROOT.std.string()
    size = 1
    for part in kind.split("[")[1:]:
        size *= int(part[:-1])
    return array.array({"I": "i", "L": "q", "F": "f", "D": "d"}[kind[0]], [0] * size)

def flat(value):
    return [x for part in value for x in flat(part)] if isinstance(value, list) else [value]

for content, path in zip(sys.argv[1::2], sys.argv[2::2]):
    trees = json.load(open(content))
    file = ROOT.TFile(path, "RECREATE")
    for name, branches in trees.items():
        tree = ROOT.TTree(name, name)
        places = {}
        for branch, (kind, values) in branches.items():
            places[branch] = place(kind)
            if isinstance(places[branch], array.array):
                tree.Branch(branch, places[branch], f"{branch}{kind[1:]}/{kind[0]}")
            else:
                tree.Branch(branch, places[branch])
        for i in range(len(values)):
            for branch, (kind, values) in branches.items():
                target = places[branch]
                if isinstance(target, array.array):
                    target[:] = array.array(target.typecode, flat(values[i]))
                elif kind == "string":
                    target.assign(values[i])
                else:
                    target.clear()
                    for value in values[i]:
                        target.push_back(value)
            tree.Fill()
        tree.Write()
    file.Close()
"""


class MLTree(NamedTuple):
    """Content of an MLTree file: its trees, and the clusters that a reader must find in it."""

    trees: dict[str, dict[str, Branch]]
    # with the columns that MLTree can give; eventNumber, nCluster and clusterIndex as the reader
    # must give them
    sample: Sample
    entry: np.ndarray  # entry of each cluster


@functools.cache
def _why_no_root() -> str:
    probe = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", "import ROOT"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return (probe.stderr.strip().splitlines() or ["no message"])[-1] if probe.returncode else ""


def require_root() -> None:
    """Skip the test where ROOT cannot be imported."""
    if _why_no_root():
        pytest.skip(f"ROOT cannot be imported here: {_why_no_root()}")


def write_trees(path: Path, trees: Trees) -> Path:
    """Write trees with ROOT.

    Types are I, L, F, D (numbers, with [n][m] behind for arrays), string, vector<T> and
    vector<vector<T>> with T a type of C++.
    """
    write_files({path: trees})
    return path


def write_files(files: Mapping[Path, Trees]) -> None:
    """Write several files in one process of ROOT, which takes long to start; types as in
    `write_trees`.
    """
    require_root()
    arguments: list[Path] = []
    for path, trees in files.items():
        plain = {
            tree: {name: (kind, ak.to_list(values)) for name, (kind, values) in branches.items()}
            for tree, branches in trees.items()
        }
        path.with_suffix(".json").write_text(json.dumps(plain), encoding="ascii")
        arguments += [path.with_suffix(".json"), path]
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _SCRIPT, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    for content in arguments[::2]:
        content.unlink()
    assert run.returncode == 0, run.stderr


def write_mltree(
    path: Path,
    *,
    seed: int = 1,
    n_events: int = 40,
    grid: Grid = WINDOW,
    reverse: bool = False,
    drop: Sequence[str] = (),
    change: Mapping[str, Branch] | None = None,
) -> MLTree:
    """Write a file of the MLTree layout with ROOT, and return what is in it.

    Parameters
    ----------
    path : Path
    seed, n_events, grid
        Of `mltree_content`.
    reverse : bool
        Branches in the opposite order.
    drop : sequence of str
        Branches of either tree that are left out.
    change : mapping of str to (type, values)
        Branches of EventTree that are added, or written in place of the usual ones.
    """
    content = mltree_content(seed=seed, n_events=n_events, grid=grid)
    trees = {
        name: dict(reversed(branches.items())) if reverse else dict(branches)
        for name, branches in content.trees.items()
    }
    trees["EventTree"] |= change or {}
    trees = {
        tree: {name: branch for name, branch in branches.items() if name not in drop}
        for tree, branches in trees.items()
    }
    write_trees(path, trees)
    return content


def mltree_content(*, seed: int = 1, n_events: int = 40, grid: Grid = WINDOW) -> MLTree:
    """Events of the MLTree layout: the first and others without clusters, some with up to four, not
    in the order of energy.

    Each cluster has a stable particle of its own near by, on the other side of phi = pi for some
    where the grid wraps; each event has an unstable mother on top of its first cluster. The second
    event has clusters at phi = +-pi where the grid wraps.
    """
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 5, n_events)
    counts[: min(3, n_events)] = (0, 3, 1)[:n_events]
    sample = make_sample(rng, int(counts.sum()), grid)
    if grid.wraps:
        sample = _turned(sample, grid, slice(0, 3))
    return mltree_of(sample, counts, rng)


def mltree_of(sample: Sample, counts: np.ndarray, rng: np.random.Generator) -> MLTree:
    """The clusters of a sample as events, `counts[i]` of them in event i."""
    entry = np.repeat(np.arange(len(counts)), counts)
    energy = ak.unflatten(sample["clusterE"], counts)
    rank = (
        ak.to_numpy(ak.flatten(ak.argsort(ak.argsort(energy, ascending=False))))
        if len(sample)
        else np.zeros(0)
    )
    phi = sample["clusterPhi"]
    truth_phi = np.where(np.abs(phi) > 3.0, -np.sign(phi) * (np.pi - 1e-3), phi - 1e-3).astype(
        np.float32
    )
    scalars = {
        name: sample[name]
        for name in (*MLTREE_CLUSTERS.values(), "truthPdgId", "truthE", "truthPt")
    } | {
        "eventNumber": 1000 + 7 * entry,
        "nCluster": counts[entry].astype(np.int32),
        "clusterIndex": rank.astype(np.int32),
        "truthEta": sample["clusterEta"] + np.float32(1e-3),
        "truthPhi": truth_phi,
    }
    known = Sample(scalars, sample.offsets, sample.cells, sample.geo, {})
    branches = (
        _event_branches(counts, rng)
        | _truth_branches(known, counts)
        | _cluster_branches(known, counts, rng)
    )
    tracks = _track_branches(known, counts, rng)
    branches |= tracks | _jet_branches(len(counts), rng)
    branches["nTrack"] = ("I", ak.num(tracks["trackPt"][1]))
    types = {"uint64": "vector<size_t>", "int32": "vector<int>", "float32": "vector<float>"}
    geo = {
        name: (types[CELL_GEO[name]], array[None]) for name, array in sample.geo.arrays().items()
    }
    return MLTree({"EventTree": branches, "CellGeo": geo}, known, entry)


def _turned(sample: Sample, grid: Grid, rows: slice) -> Sample:
    """Turn clusters about the beam by whole towers, so that their barycentres come close to phi =
    +-pi.
    """
    tower = 2.0 * np.pi / 64
    shift = np.zeros(len(sample))
    shift[rows] = tower * np.round((np.pi - sample["clusterPhi"][rows]) / tower)
    moved = np.repeat(shift, np.diff(sample.offsets))
    cell = sample.cells["cluster_cell_ID"].astype(np.int64)
    for i in range(grid.n_layers):
        here = np.flatnonzero(grid.layer[cell] == i)
        cell[here] = grid.locate(i, grid.eta[cell[here]], grid.phi[cell[here]] + moved[here])
    phi = sample["clusterPhi"] + shift
    phi = (phi - 2.0 * np.pi * np.round(phi / (2.0 * np.pi))).astype(np.float32)
    scalars = sample.scalars | {"clusterPhi": phi, "truthPhi": phi}
    return Sample(
        scalars,
        sample.offsets,
        sample.cells | {"cluster_cell_ID": cell.astype(np.uint64)},
        sample.geo,
        sample.metadata,
    )


def _event_branches(counts: np.ndarray, rng: np.random.Generator) -> dict[str, Branch]:
    n = len(counts)
    whole = {
        "runNumber": np.full(n, 284500),
        "lumiBlock": np.ones(n, dtype=int),
        "mcEventNumber": 1000 + 7 * np.arange(n),
    }
    whole |= {
        "mcChannelNumber": np.full(n, 428001),
        "NPV": np.ones(n, dtype=int),
        "nTruthPart": counts + 1,
        "nCluster": counts,
    }
    real = {
        name: rng.uniform(0.5, 1.5, n)
        for name in (
            "mcEventWeight",
            "actualInteractionsPerCrossing",
            "averageInteractionsPerCrossing",
        )
    }
    return (
        {name: ("I", array) for name, array in whole.items()}
        | {name: ("F", array) for name, array in real.items()}
        | {"eventNumber": ("L", 1000 + 7 * np.arange(n))}
    )


def _truth_branches(sample: Sample, counts: np.ndarray) -> dict[str, Branch]:
    """A stable particle for each cluster, behind a mother that decayed (status 2) and sits on the
    first cluster.
    """

    def with_mother(mother: Any, values: np.ndarray) -> ak.Array:
        return ak.concatenate(
            [np.full((len(counts), 1), mother, dtype=values.dtype), ak.unflatten(values, counts)],
            axis=1,
        )

    first = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(int)
    eta, phi = (
        ak.from_numpy(np.append(sample[name], np.float32(0.0))[first][:, None])
        for name in ("clusterEta", "clusterPhi")
    )
    n = len(sample)
    whole = {
        "PdgId": with_mother(15, sample["truthPdgId"]),
        "Status": with_mother(2, np.ones(n, dtype=np.int32)),
    }
    whole["Barcode"] = with_mother(1, 10001 + np.arange(n))
    real = {"E": with_mother(500.0, sample["truthE"]), "Pt": with_mother(400.0, sample["truthPt"])}
    real |= {"Mass": with_mother(1.777, np.full(n, 0.1396, dtype=np.float32))}
    real["Eta"] = ak.concatenate([eta, ak.unflatten(sample["truthEta"], counts)], axis=1)
    real["Phi"] = ak.concatenate([phi, ak.unflatten(sample["truthPhi"], counts)], axis=1)
    return {f"truthPart{name}": ("vector<int>", array) for name, array in whole.items()} | {
        f"truthPart{name}": ("vector<float>", array) for name, array in real.items()
    }


def _cluster_branches(
    sample: Sample, counts: np.ndarray, rng: np.random.Generator
) -> dict[str, Branch]:
    vectors: dict[str, Branch] = {}
    for branch, column in MLTREE_CLUSTERS.items():
        vectors[branch] = (
            "vector<int>" if column == "cluster_nCells" else "vector<float>",
            ak.unflatten(sample[column], counts),
        )
    weights = {"cluster_E_LCCalib": sample["clusterE"] * np.float32(1.2)}
    weights |= {
        f"cluster_{name}": rng.uniform(0.0, 1.0, len(sample))
        for name in ("EM_PROBABILITY", "HAD_WEIGHT", "OOC_WEIGHT", "DM_WEIGHT")
    }
    vectors |= {
        name: ("vector<float>", ak.unflatten(array.astype(np.float32), counts))
        for name, array in weights.items()
    }
    for name, array in sample.cells.items():
        nested = ak.unflatten(ak.unflatten(array, np.diff(sample.offsets)), counts)
        vectors[name] = (
            "vector<vector<size_t>>" if name == "cluster_cell_ID" else "vector<vector<float>>",
            nested,
        )
    return vectors


def _track_branches(
    sample: Sample, counts: np.ndarray, rng: np.random.Generator
) -> dict[str, Branch]:
    """A track for each stable particle, and every third event one of no particle; they stop at
    different layers.
    """
    more = (np.arange(len(counts)) % 3 == 0).astype(int)

    def tracks(values: np.ndarray, extra: float) -> ak.Array:
        return ak.concatenate(
            [
                ak.unflatten(values, counts),
                ak.unflatten(np.full(more.sum(), extra, dtype=values.dtype), more),
            ],
            axis=1,
        )

    n = len(sample)
    real = {
        "Pt": tracks(sample["truthPt"], 0.7),
        "P": tracks(sample["truthE"], 0.9),
        "Mass": tracks(np.full(n, 0.13957, dtype=np.float32), 0.13957),
    }
    real |= {"Eta": tracks(sample["truthEta"], 0.1), "Phi": tracks(sample["truthPhi"], -0.1)}
    real |= {
        name: tracks(rng.normal(0.0, 0.1, n).astype(np.float32), 0.5)
        for name in ("D0", "Z0", "ChiSquared")
    }
    last = np.arange(n) % (len(TRACK_LAYERS) + 1)  # layers that the track reaches
    for i, layer in enumerate(TRACK_LAYERS):
        for axis in ("Eta", "Phi"):
            reached = np.where(
                i < last, sample[f"truth{axis}"] + np.float32(0.001 * i), np.float32(MISSING)
            ).astype(np.float32)
            real[f"{axis}_{layer}"] = tracks(reached, MISSING)
    index = ak.unflatten(1 + np.arange(n) - np.repeat(np.cumsum(counts) - counts, counts), counts)
    index = ak.concatenate([index, ak.unflatten(np.full(more.sum(), -1), more)], axis=1)
    return {f"track{name}": ("vector<float>", array) for name, array in real.items()} | {
        "trackTruthParticleIndex": ("vector<int>", index)
    }


def _jet_branches(n_events: int, rng: np.random.Generator) -> dict[str, Branch]:
    branches: dict[str, Branch] = {}
    for container in JETS:
        counts = rng.integers(0, 3, n_events)
        pt, eta, phi = (
            rng.uniform(7.0, 60.0, counts.sum()),
            rng.uniform(-0.6, 0.6, counts.sum()),
            rng.uniform(-np.pi, np.pi, counts.sum()),
        )
        for name, array in {"Pt": pt, "Eta": eta, "Phi": phi, "E": pt * np.cosh(eta)}.items():
            branches[container + name] = (
                "vector<float>",
                ak.unflatten(array.astype(np.float32), counts),
            )
    return branches
