"""A sound sample has no problem; each fault is counted and shown with its first entry."""

import dataclasses

import numpy as np
import pytest

from pfcalib.columns import JAGGED, SCALARS
from pfcalib.errors import BadFileError
from pfcalib.samples import write
from pfcalib.samples.check import check_sample
from pfcalib.samples.write import write_sample


@pytest.fixture
def careless(monkeypatch):
    """A writer that checks nothing, as other tools do not."""
    monkeypatch.setattr(write.SampleWriter, "_require_sound", lambda self, chunk: None)


def test_a_sound_sample_passes_and_is_described(sample, path):
    seen = []
    report = check_sample(path, step=70, progress=seen.append)
    assert report.passed, report.problems
    assert (report.n_clusters, report.n_events, report.n_cells) == (300, 150, sample.offsets[-1])
    assert report.n_em == sample.is_em.sum()
    assert report.metadata == sample.metadata
    assert report.n_geo == 1000
    assert sum(seen) == 300
    assert set(report.ranges) == {*SCALARS, *JAGGED}
    energy = report.ranges["clusterE"]
    assert (energy.low, energy.high) == (sample["clusterE"].min(), sample["clusterE"].max())
    assert energy.mean == pytest.approx(sample["clusterE"].mean(dtype=np.float64))


def test_every_fault_is_reported_with_its_first_entry(sample, tmp_path, careless):
    scalars, cells = ({name: array.copy() for name, array in part.items()} for part in (sample.scalars, sample.cells))
    scalars["truthE"][[10, 20]] = np.nan, np.inf
    scalars["truthE"][[30, 31]] = 0.0, -1.0
    scalars["clusterE"][40] *= 1.5
    cells["cluster_cell_ID"][sample.offsets[50]] = 123456
    write_sample(tmp_path / "bad.root", dataclasses.replace(sample, scalars=scalars, cells=cells))
    report = check_sample(tmp_path / "bad.root", step=35)
    assert report.problems == (
        "truthE: 1 NaN and 1 infinite of 300 values",
        "clusters with truthE that is not positive: 2, the first is entry 30",
        "clusters with clusterE unlike the sum of its cells: 1, the first is entry 40",
        "clusters with cells that are not in CellGeo: 1, the first is entry 50",
    )
    assert report.ranges["truthE"].n_not_positive == 2


def test_missing_branches_are_named_and_the_rest_is_still_looked_at(sample, tmp_path):
    few = dataclasses.replace(sample, scalars={name: sample[name] for name in ("clusterE", "clusterEta")}, cells={})
    write_sample(tmp_path / "few.root", few)
    report = check_sample(tmp_path / "few.root")
    assert set(report.missing) == {*SCALARS, *JAGGED} - {"clusterE", "clusterEta"}
    assert "branch truthE is missing" in report.problems
    assert report.ranges["clusterE"].n == 300


def test_an_empty_sample_is_a_problem_and_no_sample_is_an_error(sample, tmp_path):
    write_sample(tmp_path / "empty.root", sample[:0])
    assert check_sample(tmp_path / "empty.root").problems == ("the sample holds no cluster",)
    with pytest.raises(BadFileError, match="no such file"):
        check_sample(tmp_path / "gone.root")
