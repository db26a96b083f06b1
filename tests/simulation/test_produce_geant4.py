"""A sample by Geant4: the particles of the fast one, with calibration truth, resumable, and
labelled with its data sets.
"""

import dataclasses
import sys

import numpy as np
import pytest

from pfcalib import cli
from pfcalib.errors import ConfigError
from pfcalib.samples.check import check_sample
from pfcalib.samples.read import read_sample
from pfcalib.simulation import produce
from pfcalib.simulation.geant4.data import find_data
from pfcalib.simulation.particles import Particles
from pfcalib.simulation.produce import ProduceConfig, cached_sample, produce_sample
from pfcalib.simulation.pythia import DijetConfig

SMALL = ProduceConfig(
    n_events=6, e_min=0.8, e_max=2.0, eta_max=0.05, grid="window", engine="geant4", chunk=3
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return produce_sample(tmp_path_factory.mktemp("geant4") / "small.root", SMALL)


@pytest.fixture(scope="module")
def sample(path):
    return read_sample(path)


def test_it_passes_its_check_and_tells_its_data_sets(path):
    report = check_sample(path)
    assert report.passed, report.problems
    assert report.metadata["generator"] == find_data().label
    assert report.metadata["config"]["engine"] == "geant4"
    assert "FTFP_BERT" in report.metadata["physics"]


def test_only_the_sample_is_left(path):
    assert [file.name for file in path.parent.iterdir()] == ["small.root"]


def test_the_particles_are_those_of_the_fast_sample(sample, tmp_path):
    fast = read_sample(
        produce_sample(tmp_path / "fast.root", dataclasses.replace(SMALL, engine="fast"))
    )
    shot = [
        dict(zip(one["eventNumber"].tolist(), one["truthE"].tolist(), strict=True))
        for one in (sample, fast)
    ]
    common = shot[0].keys() & shot[1].keys()
    assert len(common) > 1
    assert all(shot[0][event] == shot[1][event] for event in common)


def test_it_holds_calibration_truth(sample):
    account = sum(
        sample[f"cluster_ENG_CALIB_{name}"].astype(float) for name in ("TOT", "OUT_T", "DEAD_TOT")
    )
    per_event = np.bincount(sample["eventNumber"], account)
    shot = np.zeros(len(per_event))
    shot[sample["eventNumber"]] = sample["truthE"]
    assert np.all(sample["cluster_ENG_CALIB_TOT"] > 0.0)
    assert np.all(per_event <= shot * 1.001)
    assert per_event.sum() > 0.7 * shot.sum()


def test_dijets_go_through_geant4_too(tmp_path, monkeypatch):
    """Two soft photons stand for the jets, which would take minutes."""
    photons = Particles(
        np.zeros(2, np.int64),
        np.full(2, 22, np.int32),
        np.array([0.8, 1.0]),
        np.array([-0.1, 0.1]),
        np.array([0.5, 2.0]),
    )
    monkeypatch.setattr(produce, "simulate_dijets", lambda *_, **__: photons)
    config = ProduceConfig(n_events=1, dijets=DijetConfig(), engine="geant4")
    sample = read_sample(produce_sample(tmp_path / "jets.root", config))
    assert sample.metadata["process"] == "dijets"
    assert "FTFP_BERT" in sample.metadata["physics"]
    assert set(sample["truthE"].tolist()) <= {np.float32(0.8), np.float32(1.0)}
    assert sample["cluster_ENG_CALIB_TOT"].sum() > 0.3


def test_an_interrupted_production_goes_on(sample, tmp_path):
    done = []

    def stop(n_events):
        done.append(n_events)
        raise KeyboardInterrupt

    path = tmp_path / "sample.root"
    with pytest.raises(KeyboardInterrupt):
        produce_sample(path, SMALL, progress=stop)
    assert [file.name for file in tmp_path.iterdir()] == ["sample.root.parts"]
    again = read_sample(
        produce_sample(path, dataclasses.replace(SMALL, n_processes=2), progress=done.append)
    )
    assert sum(done[1:]) == SMALL.n_events
    for name in sample.scalars:
        np.testing.assert_array_equal(again[name], sample[name], err_msg=name)
    for name in sample.cells:
        np.testing.assert_array_equal(again.cells[name], sample.cells[name], err_msg=name)
    assert [file.name for file in tmp_path.iterdir()] == ["sample.root"]


def test_the_cache_tells_engines_apart(tmp_path, monkeypatch):
    monkeypatch.setattr("pfcalib.simulation.produce.produce_sample", lambda path, config, **_: path)
    assert (
        len(
            {
                cached_sample(dataclasses.replace(SMALL, engine=engine), cache_dir=tmp_path)
                for engine in ("fast", "geant4")
            }
        )
        == 2
    )


def test_an_unknown_engine_is_refused():
    with pytest.raises(ConfigError, match="engine must be one of fast, geant4, not 'geant3'"):
        dataclasses.replace(SMALL, engine="geant3")


def test_without_the_extra_the_command_ends_with_one_line(tmp_path, monkeypatch, capfd):
    monkeypatch.setitem(sys.modules, "geant4_pybind", None)
    monkeypatch.setattr(
        sys,
        "argv",
        [
            "pfcalib",
            "simulate",
            str(tmp_path / "out.root"),
            "--engine",
            "geant4",
            "--grid",
            "window",
            "-n",
            "3",
        ],
    )
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert "pip install 'pfcalib[geant4]'" in ended.value.code
    assert "\n" not in ended.value.code
    assert list(tmp_path.iterdir()) == []
