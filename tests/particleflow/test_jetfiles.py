"""Jets of a file do not depend on the number of processes, and come back from the cache."""

import numpy as np
import pytest

from pfcalib.calibration.lcw import LcwTables, derive_lcw
from pfcalib.calibration.rings import ring_cells
from pfcalib.errors import ConfigError
from pfcalib.models.elementnets import ElementsConfig
from pfcalib.particleflow.files import iterate_events, read_cells
from pfcalib.particleflow.jetfiles import (
    TRUTH,
    FileOfJets,
    Kind,
    each_nth,
    find_flow_jets,
    find_network_jets,
)
from pfcalib.simulation.collisions import CollisionConfig
from pfcalib.simulation.crossings import EventsConfig, produce_events
from pfcalib.simulation.produce import ProduceConfig, produce_sample
from pfcalib.training.elementfit import ElementTraining, collect_elements, fit_elements
from pfcalib.training.fit import TrainConfig

pytest.importorskip("fastjet")
pytest.importorskip("pythia8mc")
KINDS = {"em": Kind(), "lcw": Kind(calibrated=True), "pflow": Kind("rings"), "ideal": Kind("truth")}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Events, table of E/p and tables of local cell weighting."""
    folder = tmp_path_factory.mktemp("jets")
    pions = produce_sample(folder / "pions.root", ProduceConfig(n_events=300, e_max=50.0))
    derive_lcw(pions, split="all").save(folder / "lcw.json")
    collisions = CollisionConfig(pt_hat=(50.0, 80.0))
    config = EventsConfig(n_events=6, collisions=collisions, chunk=6, seed=2)
    return produce_events(folder / "events.root", config), folder / "lcw.json"


def test_jets_are_found_near_truth_jets_and_kept(files, tmp_path, monkeypatch):
    monkeypatch.setenv("PFCALIB_CACHE", str(tmp_path))
    from pfcalib.calibration import eoverp

    table = tmp_path / "eoverp.json"
    eoverp.EoverPTable.load().save(table)
    events, lcw = files
    done: list[int] = []
    found = find_flow_jets(events, KINDS, eoverp=table, lcw=lcw, progress=done.append)
    assert sum(done) == 6
    hard = found.sets[TRUTH].jets
    for name in KINDS:
        jets = found.sets[name].jets
        for truth in np.flatnonzero((hard.pt > 40.0) & (np.abs(hard.eta) < 0.4)):
            d_phi = np.angle(np.exp(1j * (jets.phi - hard.phi[truth])))
            near = np.hypot(jets.eta - hard.eta[truth], d_phi) < 0.3
            near &= jets.event == hard.event[truth]
            assert jets.pt[near].max(initial=0.0) > 0.3 * hard.pt[truth], name
    charged = found.sets["pflow"].charged
    assert 0.2 < charged[found.sets["pflow"].jets.pt > 30.0].mean() < 0.9
    again = find_flow_jets(events, KINDS, eoverp=table, lcw=lcw, progress=done.append)
    assert sum(done) == 6, "the jets were found anew"
    np.testing.assert_array_equal(again.sets["pflow"].jets.pt, found.sets["pflow"].jets.pt)
    with pytest.raises(ConfigError, match="no kind of jets can be called 'truth'"):
        find_flow_jets(events, {TRUTH: Kind()}, eoverp=table, lcw=lcw)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_jets_of_one_network_are_those_of_its_particles(files, tmp_path, monkeypatch):
    """Untrained, it gives tracks and half of the clusters; in two processes as in one."""
    monkeypatch.setenv("PFCALIB_CACHE", str(tmp_path))
    events, lcw = files
    read = list(iterate_events(events, tables=LcwTables.load(lcw)))
    config = ElementTraining(
        network=ElementsConfig(n_elements=16, width=8, n_blocks=1, n_heads=2),
        n_core=8,
        train=TrainConfig(learning_rate=1e-3, batch_size=16, epochs=1, loss="mse"),
    )
    data = collect_elements(read, ring_cells(read_cells(events)), config)
    network = fit_elements(data, data, config, inputs="test", folder=tmp_path, say=str).path
    done: list[int] = []
    found = find_network_jets(events, network, lcw=lcw, progress=done.append)
    assert sum(done) == 6
    assert len(found.jets.offsets) == 7
    assert found.jets.pt.max() > 5.0
    again = find_network_jets(events, network, lcw=lcw, progress=done.append)
    assert sum(done) == 6, "the jets were found anew"
    np.testing.assert_array_equal(again.jets.pt, found.jets.pt)
    some = find_network_jets(events, network, lcw=lcw, every=4, n_processes=2)
    whole = FileOfJets(*4 * [np.arange(6.0)], {"network": found})
    fourth = each_nth(whole, 4)
    assert fourth.number.tolist() == [0, 4]
    for name in ("offsets", "pt", "eta", "phi"):
        one, other = (getattr(of, name) for of in (some.jets, fourth.sets["network"].jets))
        np.testing.assert_array_equal(one, other)
