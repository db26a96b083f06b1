"""Events with two top quarks are what detector and preselection leave of collisions, hand-made or
of Pythia.
"""

import itertools

import awkward as ak
import numpy as np
import pytest

pytest.importorskip("pythia8mc")
pytest.importorskip("fastjet")

from pfcalib.errors import ConfigError
from pfcalib.higgs.topevents import (
    CLASSES,
    MAX_JETS,
    N_TAGS,
    TAG_EFFICIENCY,
    TAGGED,
    TopConfig,
    TopEvents,
    _quarks,
    cached_top_events,
    draw_tags,
    generate_tops,
    read_top_events,
    select_tops,
)

B_HADRON, B_QUARK, PION, MUON, TOP, GLUON, W = 511, 5, 211, 13, 6, 21, 24


def collision(*particles):
    """One event of (pdg id, pT, eta, phi, mother's place); what has no hadrons has decayed."""
    listed = []
    for pdg_id, pt, eta, phi, mother in particles:
        p = {"px": pt * np.cos(phi), "py": pt * np.sin(phi), "pz": pt * np.sinh(eta)}
        status = 83 if pdg_id in (PION, MUON) else -83
        listed.append(
            {
                "id": pdg_id, "status": status, "p": {**p, "e": pt * np.cosh(eta)},
                "mother1": mother, "daughter1": 0, "daughter2": 0,
            }
        )  # fmt: skip
    return ak.Array([{"prt": listed, "info": {"weights": [0.5]}}])


PLACES = [(0.5, -2.5), (-0.8, -1.2), (1.5, 0.2), (-1.7, 1.3), (0.1, 2.4), (-2.2, -2.9)]
HEAD = [(90, 0.0, 1.0, 0.0, 0), (TOP, 100.0, 0.0, 0.0, 0), (GLUON, 80.0, 0.0, 0.0, 0)]
LEPTON = (MUON, 40.0, 0.3, 0.9, 0)


def jets_of(*mothers, n=6):
    """Jets of 60 GeV, the first ones with a b quark of a mother and its hadron."""
    found = []
    for place, (eta, phi) in enumerate(PLACES[:n]):
        found.append((PION, 60.0, eta, phi, 0))
        if place < len(mothers):
            found.append((B_QUARK, 60.0, eta, phi, mothers[place]))
            found.append((B_HADRON, 55.0, eta, phi, 0))
    return found


def selected(*particles, higgs=False):
    return select_tops(collision(*HEAD, *particles), np.random.default_rng(1), higgs=higgs, tried=1)


def test_an_event_counts_with_the_probability_of_its_tags():
    found = selected(LEPTON, *jets_of(1, 1, 2, 2))
    b, light = TAG_EFFICIENCY[0, TAGGED], TAG_EFFICIENCY[2, TAGGED]
    assert found.n_events == 1
    assert found.weight[0] == pytest.approx(0.5 * b**4, rel=0.03)  # or one of the light jets is
    assert found.weight[0] > 0.5 * b**4
    assert found.lepton[0] == pytest.approx([40.0, 0.3, 0.9], rel=0.1)
    assert (found.tag[0] >= TAGGED).sum() >= N_TAGS
    assert light < 0.01


def test_jets_beside_the_decays_name_the_class():
    assert selected(LEPTON, *jets_of(1, 1, 2, 2)).label == CLASSES.index("ttbb")
    assert selected(LEPTON, *jets_of(1, 1)).label == CLASSES.index("ttlight")
    assert selected(LEPTON, *jets_of(1, 1, 1, 1)).label == CLASSES.index("ttlight")
    assert selected(LEPTON, *jets_of(1, 1, 2, 2), higgs=True).label == CLASSES.index("tth")


@pytest.mark.parametrize(
    ("particles", "why"),
    [
        ([*jets_of(1, 1, 2, 2)], "no lepton"),
        ([LEPTON, (MUON, 15.0, -0.5, 3.0, 0), *jets_of(1, 1, 2, 2)], "two leptons"),
        ([(MUON, 22.0, 0.3, 0.9, 0), *jets_of(1, 1, 2, 2)], "a soft lepton"),
        ([(MUON, 40.0, 0.5, -2.45, 0), *jets_of(1, 1, 2, 2)], "a lepton in a jet"),
        ([LEPTON, *jets_of(1, 1, 2, 2, n=5)], "five jets"),
    ],
)
def test_what_fails_the_preselection_is_refused(particles, why):
    assert selected(*particles).n_events == 0, why


def test_tags_are_drawn_as_if_all_were_and_those_with_too_few_thrown_away():
    """Against drawing tags of each jet and rejecting: probability, number and levels."""
    flavour = np.array([0, 0, 0, 1, 2, 0, 2, 2, 2, 2])
    there = np.arange(MAX_JETS) < 7
    n = 40_000
    many, all_there = np.tile(flavour, (n, 1)), np.tile(there, (n, 1))
    rng = np.random.default_rng(5)
    tag, probability = draw_tags(many, all_there, rng)
    level = (rng.uniform(size=(n, MAX_JETS, 1)) < TAG_EFFICIENCY[many][..., 1:]).sum(axis=-1)
    level *= there
    kept = (level >= TAGGED).sum(axis=1) >= N_TAGS
    assert probability.std() < 1e-12
    assert probability[0] == pytest.approx(kept.mean(), abs=4 * np.sqrt(kept.mean() / n))
    assert ((tag >= TAGGED).sum(axis=1) >= N_TAGS).all()
    assert not tag[:, 7:].any()
    for jet, wanted in itertools.product(range(7), range(5)):
        one, other = (tag[:, jet] == wanted).mean(), (level[kept, jet] == wanted).mean()
        assert one == pytest.approx(other, abs=5 * np.sqrt(0.25 / kept.sum()))


def test_probabilities_of_tags_sum_over_all_ways():
    share = TAG_EFFICIENCY[[0, 0, 0, 0, 1], TAGGED]
    exact = sum(
        np.prod(np.where(np.array(way), share, 1.0 - share))
        for way in itertools.product([True, False], repeat=5)
        if sum(way) >= N_TAGS
    )
    flavour, there = np.array([[0, 0, 0, 0, 1, 2]]), np.array([[True] * 5 + [False]])
    assert draw_tags(flavour, there, np.random.default_rng(1))[1] == pytest.approx(exact)


@pytest.fixture(scope="module")
def batches():
    return {
        name: generate_tops(name, n, 3) for name, n in (("tth", 150), ("ttbb", 150), ("tt", 300))
    }


def test_the_two_samples_of_top_quarks_share_all_events(batches):
    """Quarks beside the decays are in one and not in the other; a twentieth of all events has
    them.
    """
    for name, (events, _) in batches.items():
        quarks, beside = _quarks(events, 5)
        more = np.bincount(quarks.event, beside, len(events)) > 0
        assert more.mean() == pytest.approx({"tth": 0.07, "ttbb": 1.0, "tt": 0.0}[name], abs=0.05)
    share = {
        name: ak.sum(batches[name][0].info.weights) / batches[name][1] for name in ("ttbb", "tt")
    }
    assert 0.5 < share["tt"] < 0.8  # the lepton
    assert share["ttbb"] / sum(share.values()) == pytest.approx(0.055, abs=0.02)


def test_a_higgs_boson_brings_b_jets(batches):
    found = {
        name: select_tops(events, np.random.default_rng(2), higgs=name == "tth", tried=tried)
        for name, (events, tried) in batches.items()
    }
    assert (found["tth"].label == 0).all()
    assert (found["ttbb"].label == CLASSES.index("ttbb")).mean() > 0.5
    assert not np.isin(found["tt"].label, (0, CLASSES.index("ttbb"))).any()
    acceptance = {name: of.weight.sum() / of.tried.sum() for name, of in found.items()}
    assert 0.03 < acceptance["tth"] < 0.11
    assert acceptance["ttbb"] + acceptance["tt"] < 0.02 * acceptance["tth"] + 2e-3
    for of in found.values():
        pt = of.jets[..., 0]
        assert (np.diff(pt, axis=1) <= 0.0).all()
        assert (np.count_nonzero(pt, axis=1) >= 6).all()
        assert pt[pt > 0.0].min() > 25.0


def test_a_sample_is_found_again_goes_on_and_is_the_same_by_two_processes(tmp_path, monkeypatch):
    config = TopConfig(process="tth", n_events=40, chunk=20)
    made = []
    for n_processes in (1, 2):
        monkeypatch.setenv("PFCALIB_CACHE", str(tmp_path / str(n_processes)))
        path = cached_top_events(config, n_processes=n_processes)
        time = path.stat().st_mtime_ns
        assert cached_top_events(config) == path
        assert path.stat().st_mtime_ns == time
        made.append(read_top_events(path))
    for name, one, other in zip(TopEvents._fields, *made, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=name)
    assert len(made[0].tried) == 2
    path.unlink()
    calls = []
    monkeypatch.setattr(
        "pfcalib.higgs.topevents.simulate_chunk",
        lambda config, number: calls.append(number) or stop(number, made[0]),
    )
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            cached_top_events(config)
    assert calls == [0, 1, 1]  # the first one is kept


def stop(number, events):
    if number:
        raise KeyboardInterrupt
    return events


def test_an_unknown_process_is_refused():
    with pytest.raises(ConfigError, match="ttbb"):
        TopConfig(process="ww")
    with pytest.raises(ConfigError, match="ttbb"):
        generate_tops("ww", 1, 1)
