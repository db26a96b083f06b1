"""A sound sample has no problem; each fault is counted and shown with its first entry."""

import dataclasses

import awkward as ak
import numpy as np
import pytest
from factories import in_mev
from samples.damage import basket, blank, write_clusters

from pfcalib.columns import JAGGED, SCALARS
from pfcalib.errors import BadFileError
from pfcalib.samples.check import check_sample
from pfcalib.samples.histograms import SAMPLINGS, SampleHistograms
from pfcalib.samples.write import write_sample


def test_a_sound_sample_passes_and_is_described(sample, path):
    seen = []
    report = check_sample(path, step=70, progress=seen.append)
    assert report.passed, report.problems
    assert (report.n_entries, report.n_clusters, report.n_events, report.n_cells) == (
        300,
        300,
        150,
        sample.offsets[-1],
    )
    assert (report.layout, report.unit, report.missing) == ("pfcalib", "cluster", ())
    assert report.n_em == sample.is_em.sum()
    assert report.metadata == sample.metadata
    assert report.n_geo == 1000
    assert seen == [70, 70, 70, 70, 20]
    assert set(report.ranges) == {*SCALARS, *JAGGED}
    energy = report.ranges["clusterE"]
    assert (energy.low, energy.high) == (sample["clusterE"].min(), sample["clusterE"].max())
    assert energy.mean == pytest.approx(sample["clusterE"].mean(dtype=np.float64))


def test_every_fault_is_reported_with_its_first_entry(sample, tmp_path):
    scalars, cells = (
        {name: array.copy() for name, array in part.items()}
        for part in (sample.scalars, sample.cells)
    )
    scalars["truthE"][[10, 20]] = np.nan, np.inf
    scalars["truthE"][[30, 31]] = 0.0, -1.0
    scalars["clusterE"][40] *= 1.5
    scalars["cluster_nCells"][45] = 0
    first = sample.offsets[[50, 60]]
    cells["cluster_cell_ID"][first[0]] = 123456
    cells["cluster_cell_ID"][first[1]] = cells["cluster_cell_ID"][first[1] + 1]
    cells["cluster_cell_hitsE_EM"][sample.offsets[70] : sample.offsets[71]] = -np.inf
    report = check_sample(
        write_clusters(
            tmp_path / "bad.root", dataclasses.replace(sample, scalars=scalars, cells=cells)
        ),
        step=35,
    )
    assert report.problems == (
        "truthE must be finite: not so in 2 clusters, the first at entry 10",
        "truthE must be positive: not so in 2 clusters, the first at entry 30",
        "clusterE unlike the sum of its cells: 1 clusters, the first at entry 40",
        "cluster_nCells that is not positive: 1 clusters, the first at entry 45",
        "cluster_cell_ID must be in CellGeo: not so in 1 clusters, the first at entry 50",
        "a cell twice in a cluster: 1 clusters, the first at entry 60",
        "cluster_cell_hitsE_EM must be finite: not so in 1 clusters, the first at entry 70",
    )
    truth = report.ranges["truthE"]
    assert (truth.n_nan, truth.n_inf, truth.n_bad_clusters) == (1, 1, 4)
    assert (truth.low, truth.high) == (
        -1.0,
        np.delete(scalars["truthE"], 20)[np.r_[:10, 11:299]].max(),
    )


ODD = {  # column: a value that is none, and what is said of it
    "clusterEta": (7.0, "clusterEta should lie within -6 and 6"),
    "truthEta": (-25.0, "truthEta should lie within -20 and 20"),
    "clusterPhi": (180.0, "clusterPhi should lie within -6.2832 and 6.2832 rad"),
    "cluster_DELTA_ALPHA": (-1.0, "cluster_DELTA_ALPHA should lie within 0 and 3.1416 rad"),
    "cluster_CENTER_MAG": (1e6, "cluster_CENTER_MAG should lie within -20000 and 20000 mm"),
    "cluster_SECOND_R": (-1e9, "cluster_SECOND_R should lie within 0 and"),
    "cluster_ENG_FRAC_EM": (1.5, "cluster_ENG_FRAC_EM should lie within 0 and 1"),
    "cluster_LATERAL": (-0.5, "cluster_LATERAL should lie within 0 and 1"),
    "cluster_E_EMB1": (5e4, "cluster_E_EMB1 should lie within -7000 and 7000 GeV"),
    "cluster_cell_hitsE_EM": (5e4, "cluster_cell_hitsE_EM should lie within -7000 and 7000 GeV"),
    "truthPt": (1000.0, "truthPt should not exceed truthE"),
    "clusterPt": (1000.0, "clusterPt should not exceed clusterE"),
    "cluster_ENG_CALIB_EM": (1e3, "cluster_ENG_CALIB_EM should not exceed cluster_ENG_CALIB_TOT"),
}


@pytest.mark.parametrize("name", ODD)
def test_a_value_that_cannot_be_is_a_problem_with_its_entry(sample, tmp_path, name):
    value, said = ODD[name]
    if name in sample.cells:
        sample.cells[name][sample.offsets[40]] = value
    else:
        sample.scalars[name][40] = value
    write_sample(tmp_path / "odd.root", sample)
    (problem,) = check_sample(tmp_path / "odd.root").problems
    assert problem.startswith(said)
    assert problem.endswith("not so in 1 clusters, the first at entry 40")


def test_energies_in_mev_are_a_problem_that_names_the_cause(sample, tmp_path):
    path = tmp_path / "mev.root"
    write_sample(path, in_mev(sample))
    problems = check_sample(path, step=100).problems
    assert (
        "energies should be in GeV, are these in MeV (unit MeV)?: not so in 300 clusters, the "
        "first at entry 0"
    ) in problems
    assert check_sample(path, unit="MeV").passed
    for name in ("truthE", "cluster_ENG_CALIB_TOT", "cluster_ENG_POS", "cluster_sumCellE"):
        scalars = sample.scalars | {name: in_mev(sample)[name]}
        write_sample(path, dataclasses.replace(sample, scalars=scalars))
        problems = "".join(check_sample(path).problems)
        assert f"{name} and clusterE should be in one unit, is one in MeV?" in problems or (
            f"clusterE and {name} should be in one unit, is one in MeV?" in problems
        ), name
    cells = sample.cells | {"cluster_cell_E": 1000 * sample.cells["cluster_cell_E"]}
    write_sample(path, dataclasses.replace(sample, cells=cells))
    assert "clusterE and its cells should be in one unit" in "".join(check_sample(path).problems)


def test_missing_branches_are_named_and_the_rest_is_still_looked_at(sample, tmp_path):
    few = dataclasses.replace(
        sample, scalars={name: sample[name] for name in ("clusterE", "clusterEta")}, cells={}
    )
    write_sample(tmp_path / "few.root", few)
    report = check_sample(tmp_path / "few.root")
    assert set(report.missing) == {*SCALARS, *JAGGED} - {"clusterE", "clusterEta"}
    assert "branch truthE is missing" in report.problems
    assert report.ranges["clusterE"].n == 300
    assert report.n_em is None


def test_branches_that_the_source_of_a_converted_file_could_not_give_are_no_problem(
    sample, tmp_path
):
    scalars = {name: array for name, array in sample.scalars.items() if name != "cluster_PTD"}
    write_sample(
        tmp_path / "part.root",
        dataclasses.replace(sample, scalars=scalars, metadata={"absent": ["cluster_PTD"]}),
    )
    report = check_sample(tmp_path / "part.root")
    assert report.passed, report.problems
    assert report.missing == ("cluster_PTD",)


def test_an_empty_sample_is_a_problem_and_no_sample_is_an_error(sample, tmp_path):
    write_sample(tmp_path / "empty.root", sample[:0])
    assert check_sample(tmp_path / "empty.root").problems == (
        "the sample holds no cluster in 0 entries",
    )
    with pytest.raises(BadFileError, match="no such file"):
        check_sample(tmp_path / "gone.root")


def test_a_damaged_basket_is_a_problem_and_all_other_entries_are_looked_at(sample, tmp_path):
    good = write_clusters(tmp_path / "good.root", sample, basket_size=50)
    bad = blank(good, tmp_path / "bad.root", basket(good, "ClusterTree", "cluster_cell_E", 2))
    report = check_sample(bad, step=150)
    assert (report.n_entries, report.n_clusters) == (300, 250)
    assert len(report.problems) == 1
    assert "ClusterTree: entry 100: cluster_cell_E" in report.problems[0]
    assert "lost: 50" in report.problems[0]


def test_lengths_that_disagree_are_a_problem_of_one_entry(sample, tmp_path):
    counts = np.diff(sample.offsets)
    counts[150] += 1
    longer = ak.unflatten(np.ones(counts.sum(), dtype=np.float32), counts)
    report = check_sample(
        write_clusters(tmp_path / "jagged.root", sample, jagged={"cluster_cell_hitsE_EM": longer})
    )
    assert report.n_clusters == 299
    assert "entry 150" in report.problems[0]


def test_histograms_hold_every_finite_value_whatever_the_size_of_the_chunks(sample, path):
    whole, parts = SampleHistograms(), SampleHistograms()
    whole.fill(sample)
    check_sample(path, step=70, observe=parts.fill)
    for name in ("truth_energy", "cluster_energy", "response", "directions", "n_cells"):
        assert getattr(whole, name) == getattr(parts, name)
        assert getattr(whole, name).sum(flow=True) == 300
    np.testing.assert_allclose(parts.layer_energy, whole.layer_energy)
    for name in ("PreSamplerB", "EMB1", "TileBar2"):
        assert whole.layer_energy[SAMPLINGS.index(name)] == pytest.approx(
            sample[f"cluster_E_{name}"].sum(dtype=np.float64)
        )
    sample["truthE"][:3] = np.nan, np.inf, -1.0
    holes = SampleHistograms()
    holes.fill(sample)
    assert holes.truth_energy.sum(flow=True) == 298
    assert holes.response.sum(flow=True) == 297
