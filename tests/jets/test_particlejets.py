"""Jets of particles by Pythia: the selection, what does not depend on processes, and what a stopped
call leaves.
"""

from __future__ import annotations

import numpy as np
import pytest

from pfcalib.errors import ConfigError
from pfcalib.jets.declustering import SHAPES
from pfcalib.jets.particlejets import (
    MAX_RAPIDITY,
    PT_MIN,
    ParticleJetConfig,
    cached_jets,
    join_jets,
    read_jets,
    simulate_jets,
)

pytest.importorskip("pythia8mc")
pytest.importorskip("fastjet")
CONFIG = ParticleJetConfig(process="w", n_events=60, seed=3, chunk=30)


@pytest.fixture(scope="module")
def made():
    return [simulate_jets(CONFIG, number) for number in range(2)]


def test_jets_are_hard_come_two_from_an_event_at_most_and_most_are_bosons(made):
    jets = join_jets(made)
    assert (jets.pt >= PT_MIN).all()
    assert np.unique(jets.event, return_counts=True)[1].max() <= 2
    assert jets.event.min() >= 0
    assert (made[1].event >= CONFIG.chunk).all()
    assert (jets.origin == 24).all()
    near = jets.apart < 0.3
    assert near.mean() > 0.7
    mass = jets.shapes[near, SHAPES.index("mass_sd")]
    assert 75.0 < np.median(mass[mass > 40.0]) < 90.0
    assert len(jets.n_particles) == CONFIG.n_events
    assert MAX_RAPIDITY == 2.5


def test_processes_and_a_stopped_call_change_nothing(made, tmp_path, monkeypatch):
    monkeypatch.setenv("PFCALIB_CACHE", str(tmp_path))
    path = cached_jets(CONFIG, n_processes=2)
    for found, expected in zip(read_jets(path), join_jets(made), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert not path.with_suffix(".parts").exists()
    before = path.read_bytes()
    path.unlink()
    calls = []

    def killed(config, number):
        calls.append(number)
        if number == 1 and calls.count(1) == 1:
            raise KeyboardInterrupt
        return made[number]

    monkeypatch.setattr("pfcalib.jets.particlejets.simulate_jets", killed)
    with pytest.raises(KeyboardInterrupt):
        cached_jets(CONFIG)
    assert cached_jets(CONFIG) == path
    assert calls == [0, 1, 1]  # the first part was taken
    assert path.read_bytes() == before


def test_an_unknown_process_is_refused():
    with pytest.raises(ConfigError, match="process"):
        ParticleJetConfig(process="top")
