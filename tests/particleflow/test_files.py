"""Events come out of MLTree files of the user and of pfcalib as they were put in."""

import awkward as ak
import numpy as np
import pytest
import uproot
from samples.real_root import write_mltree

from pfcalib.calibration.rings import ring_cells
from pfcalib.errors import BadFileError
from pfcalib.geometry import BARREL
from pfcalib.particleflow.event import HARD_SCATTER, NO_VERTEX
from pfcalib.particleflow.files import count_events, iterate_events, read_cells
from pfcalib.particleflow.flow import run_flow
from pfcalib.particleflow.methods import build_method
from pfcalib.samples.packaged import packaged_sample


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """A file that ROOT wrote, with clusters all around and tracks, and what is in it."""
    path = tmp_path_factory.mktemp("foreign") / "barrel.root"
    return path, write_mltree(path, grid=BARREL)


def test_clusters_of_a_foreign_file_are_all_there(foreign):
    path, content = foreign
    events, sample = list(iterate_events(path, step=7)), content.sample
    assert len(events) == count_events(path)
    for name, column in (("energy", "clusterE"), ("eta", "clusterEta"), ("phi", "clusterPhi")):
        joined = np.concatenate([getattr(event.clusters, name) for event in events])
        np.testing.assert_array_equal(joined, sample[column].astype(np.float64))
    joined = np.concatenate([event.clusters.cell_energy for event in events])
    np.testing.assert_array_equal(joined, sample.cells["cluster_cell_E"].astype(np.float64))
    sizes = np.concatenate([np.diff(event.clusters.offsets) for event in events])
    np.testing.assert_array_equal(sizes, np.diff(sample.offsets))
    assert all(event.truth is None for event in events)


def test_tracks_of_a_foreign_file_have_a_vertex_by_z0(foreign):
    path, content = foreign
    columns = content.trees["EventTree"]
    events = list(iterate_events(path))
    pt = np.concatenate([event.tracks.pt for event in events])
    np.testing.assert_allclose(pt, ak.to_numpy(ak.flatten(columns["trackPt"][1])), rtol=1e-6)
    z0, eta = (ak.to_numpy(ak.flatten(columns[f"track{name}"][1])) for name in ("Z0", "Eta"))
    near = np.abs(z0) / np.cosh(eta) < 2.0
    vertex = np.concatenate([event.tracks.vertex for event in events])
    np.testing.assert_array_equal(vertex, np.where(near, HARD_SCATTER, NO_VERTEX))
    reached = np.concatenate([event.tracks.eta_at for event in events])
    missing = ak.to_numpy(ak.flatten(columns["trackEta_EMB2"][1])) < -9e8
    np.testing.assert_array_equal(np.isnan(reached[:, 2]), missing)


def test_particle_flow_runs_on_a_foreign_file(foreign):
    cells, method = ring_cells(read_cells(foreign[0])), build_method("rings")
    for event in iterate_events(foreign[0]):
        objects = run_flow(event, cells, method)
        taken = np.bincount(objects.links.cluster, objects.links.energy, len(event.clusters.energy))
        kept = objects.neutrals.size > 0.0
        np.testing.assert_allclose(
            (objects.neutrals.energy + taken)[kept], event.clusters.energy[kept], atol=1e-6
        )


def test_shares_of_a_cell_add_up_to_one(foreign):
    for event in iterate_events(foreign[0]):
        of = event.clusters
        total = np.bincount(of.cell, of.weight, BARREL.n_cells)
        energy = np.bincount(of.cell, of.cell_energy, BARREL.n_cells)
        np.testing.assert_allclose(total[energy != 0.0], 1.0, rtol=1e-9)


def test_files_without_events_or_tracks_are_refused_by_name(tmp_path, foreign):
    with pytest.raises(BadFileError, match=r"geant4_pions\.root: particle flow needs an MLTree"):
        list(iterate_events(packaged_sample("geant4_pions")))
    path = tmp_path / "no_tracks.root"
    drop = [name for name in foreign[1].trees["EventTree"] if name.startswith("trackEta_EMB2")]
    write_mltree(path, grid=BARREL, drop=drop)
    with pytest.raises(BadFileError, match=r"no_tracks\.root: .*trackEta_EMB2"):
        list(iterate_events(path))


def test_a_hit_in_no_cell_is_refused_with_its_entry(tmp_path, foreign):
    """Of a file with truth whose hits name a cell that CellGeo does not have."""
    with uproot.open(foreign[0]) as file:
        names = [of.name for of in file["EventTree"].branches if "Jets" not in of.name]
        tree = {name: file["EventTree"][name].array() for name in names}
        geo = file["CellGeo"].arrays()
    n = len(tree["eventNumber"])
    hits = ak.Array([[10**9] if i == 3 else [] for i in range(n)])
    tree |= {"hitCell": hits, "hitParticle": ak.values_astype(0 * hits, np.int32)}
    tree |= {name: ak.values_astype(0.0 * hits, np.float32) for name in ("hitSignal", "hitE")}
    path = tmp_path / "hits.root"
    with uproot.recreate(path) as file:
        file["EventTree"] = tree
        file["CellGeo"] = {name: geo[name] for name in geo.fields}
    with pytest.raises(BadFileError, match=r"hits\.root: EventTree: entry 3: hitCell 1000000000"):
        list(iterate_events(path))
