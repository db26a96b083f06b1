"""Large jets of boosted particles by Pythia."""

from __future__ import annotations

import awkward as ak
import numpy as np
import pytest

pytest.importorskip("pythia8mc")
pytest.importorskip("fastjet")

from pfcalib.errors import ConfigError
from pfcalib.jets import boosted
from pfcalib.jets.boosted import (
    COLUMNS,
    INPUTS,
    BoostedConfig,
    cached_boosted,
    generate,
    read_boosted,
    simulate_boosted,
)
from pfcalib.jets.grooming import pt_eta_phi_mass

SMALL = BoostedConfig(process="zh", n_events=60, chunk=30, seed=3)


@pytest.fixture(scope="module")
def jets():
    return simulate_boosted(SMALL)


def test_two_processes_make_what_one_does(jets):
    again = simulate_boosted(SMALL, n_processes=2)
    for name in COLUMNS:
        np.testing.assert_array_equal(again[name], jets[name])


def test_masses_are_those_of_the_bosons(jets):
    for number, mass in ((23, 91.2), (25, 125.0)):
        mine = jets["truth"] == number
        assert mine.sum() > 20
        for name in INPUTS:
            assert np.nanmedian(jets[f"{name}_mass"][mine]) == pytest.approx(mass, rel=0.15)


def test_inputs_agree_on_the_transverse_momentum(jets):
    for name in INPUTS:
        ratio = jets[f"{name}_pt"] / jets["truth_pt"]
        assert np.nanmedian(ratio) == pytest.approx(1.0, abs=0.05)
        assert np.isfinite(ratio).mean() > 0.9


def test_only_higgs_bosons_and_few_others_have_two_tags(jets):
    two = jets["n_tags"] >= 2
    assert two[jets["truth"] == 25].mean() > 2.0 * two[jets["truth"] == 23].mean()


def test_what_an_interruption_left_is_taken(tmp_path, monkeypatch, jets):
    monkeypatch.setenv("PFCALIB_CACHE", str(tmp_path))
    made, part = [], boosted._part

    def interrupted(config, number):
        made.append(number)
        if len(made) == 2:
            raise KeyboardInterrupt
        return part(config, number)

    monkeypatch.setattr(boosted, "_part", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cached_boosted(SMALL)
    path = cached_boosted(SMALL)
    assert made == [0, 1, *range(1, len(SMALL.jobs))]
    assert cached_boosted(SMALL) == path  # and is not made again
    assert [p.name for p in path.parent.iterdir() if not p.name.startswith(".")] == [path.name]
    for name in COLUMNS:
        np.testing.assert_array_equal(read_boosted(path)[name], jets[name])


def test_events_of_each_slice_follow_its_width():
    config = BoostedConfig(process="qcd", n_events=1200, chunk=100)
    n = np.bincount(*np.transpose(config.jobs)[:1], weights=np.transpose(config.jobs)[1])
    assert n == pytest.approx(1200 * np.diff(boosted.SLICES) / 2400.0, abs=1.0)


def test_an_unknown_process_is_refused():
    with pytest.raises(ConfigError, match="expected one of wh, zh, tt, qcd"):
        BoostedConfig(process="ww")


def test_bosons_are_longitudinal():
    events = generate("wh", 1, 200, 5)
    cosine = []
    for event in events:
        ids = np.abs(ak.to_numpy(event.prt.id))
        boson = event.prt[np.flatnonzero(ids == 24)[-1]]
        quark = event.prt[boson.daughter1]
        w, q = (np.array([[x.p[name] for name in ("px", "py", "pz", "e")]]) for x in (boson, quark))
        # of a decay to massless quarks: E* = m / 2, and E = gamma (E* + beta p* cos)
        mass, (beta, gamma) = pt_eta_phi_mass(w)[0, 3], _boost(w[0])
        cosine.append((2.0 * q[0, 3] / (gamma * mass) - 1.0) / beta)
    second = np.mean(np.square(cosine))
    # 3/4 sin^2 has a second moment of 1/5, an even decay one of 1/3
    assert second == pytest.approx(0.2, abs=4.0 * np.std(np.square(cosine)) / np.sqrt(200.0))
    assert second < 0.27


def _boost(momentum):
    *p, e = momentum
    beta = np.linalg.norm(p) / e
    return beta, 1.0 / np.sqrt(1.0 - beta**2)
