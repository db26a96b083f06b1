"""Local cell weighting recovers weights that are known, leaves alone what it should, and does not
depend on chunks.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from factories import make_sample

from pfcalib.calibration.lcw import LcwConfig, LcwTables, apply_lcw, cached_lcw, derive_lcw, fit_lcw
from pfcalib.calibration.lcw_fit import TRUTH, ClusterRecord, close_cells
from pfcalib.calibration.lcw_tables import add_out_of_cluster, bounded
from pfcalib.calibration.likelihood import EmLikelihood, LikelihoodConfig
from pfcalib.errors import ConfigError, ValidationError
from pfcalib.samples.schema import CellGeo, Sample
from pfcalib.samples.write import write_sample

SMALL = LcwConfig(
    likelihood=LikelihoodConfig(n_eta=2, n_energy=3, n_density=4, n_lambda=5),
    n_energy=3,
    n_density=4,
    n_cluster_eta=2,
    n_lambda=3,
)
PLAIN = dataclasses.replace(SMALL, closure_iterations=0)
E_TOT, E_OUT, E_DEAD = (
    "cluster_ENG_CALIB_TOT",
    "cluster_ENG_CALIB_OUT_T",
    "cluster_ENG_CALIB_DEAD_TOT",
)


def known(rng, n=2000, *, neutral=0.95, charged=1.3, out=0.1, dead=0.05):
    """Clusters of which every cell has its true deposit in a fixed ratio to what was measured, told
    apart without doubt by depth.
    """
    sample = make_sample(rng, n)
    em = sample.is_em
    owner = np.repeat(np.arange(n), np.diff(sample.offsets))
    energy = sample.cells["cluster_cell_E"].astype(np.float64)
    ratio = np.where(em, neutral, charged)
    cells = {
        **sample.cells,
        **{name: np.zeros_like(energy) for name in TRUTH},
        TRUTH[0]: ratio[owner] * energy,
    }
    measured = np.bincount(owner, weights=energy, minlength=n)
    scalars = dict(sample.scalars)
    scalars |= {
        "cluster_CENTER_LAMBDA": np.where(em, 20.0, 2000.0),
        "cluster_FIRST_ENG_DENS": np.full(n, 1e-6),
        "clusterE": measured,
    }
    scalars |= {
        "cluster_ISOLATION": np.full(n, 0.5),
        E_TOT: ratio * measured,
        E_OUT: out * measured,
        E_DEAD: dead * measured,
    }
    geo = CellGeo(
        **{
            **{f.name: getattr(sample.geo, f.name) for f in dataclasses.fields(CellGeo)},
            "sigma": np.full(len(sample.geo), 1e-6),
        }
    )
    return dataclasses.replace(sample, scalars=scalars, cells=cells, geo=geo)


def flat_tables(config, *, weight=(1.0, 1.0), ooc=(0.0, 0.0), dm=(0.0, 0.0), p_em=0.5):
    """Tables with one value everywhere."""
    shape = tuple(len(edges) - 1 for edges in config.likelihood.edges)
    clusters = config.cluster_shape
    tables = (
        np.broadcast_to(np.reshape(value, (2,) + (1,) * (len(size) - 1)), size)
        for value, size in ((weight, config.weight_shape), (ooc, clusters), (dm, clusters))
    )
    return LcwTables(EmLikelihood(config.likelihood.edges, np.full(shape, p_em)), *tables, config)


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("content", ["mean_of_ratios", "ratio_of_sums"])
def test_weights_that_are_known_are_recovered_step_by_step(rng, content):
    sample = known(rng)
    tables = fit_lcw(
        [sample],
        dataclasses.replace(
            PLAIN,
            content=content,
            likelihood=dataclasses.replace(SMALL.likelihood, prior_clusters=0.0),
        ),
    )
    for kind, ratio in enumerate((0.95, 1.3)):
        used = tables.weights[kind][tables.weights[kind] != 1.0]
        assert used.size > 10
        np.testing.assert_allclose(used, ratio, rtol=1e-6)
    energies = tables.apply(sample)
    np.testing.assert_array_equal(energies.p_em, sample.is_em)
    weighted = np.abs(energies.cells / sample[E_TOT] - 1.0) < 1e-6
    assert weighted.mean() > 0.7  # the others hold cells of bins with few entries
    for found, target in (
        (energies.ooc, sample[E_TOT] + sample[E_OUT]),
        (energies.full, sample[E_TOT] + sample[E_OUT] + sample[E_DEAD]),
    ):
        np.testing.assert_allclose(found[weighted], target[weighted], rtol=2e-3)


def test_the_published_neutral_clusters_keep_weight_one(rng):
    sample = known(rng)
    tables = fit_lcw([sample], dataclasses.replace(PLAIN, em_weights=False))
    assert np.all(tables.weights[0] == 1.0)
    em = sample.is_em
    energies = tables.apply(sample, p_em=em)
    np.testing.assert_allclose(energies.cells[em], sample["clusterE"][em], rtol=1e-12)


def test_a_given_probability_replaces_the_likelihood_and_mixes_the_weights(rng):
    sample = known(rng, 50)
    tables = flat_tables(PLAIN, weight=(1.1, 1.5))
    p = rng.random(50)
    np.testing.assert_allclose(
        tables.apply(sample, p_em=p).cells,
        (1.1 * p + 1.5 * (1.0 - p)) * sample["clusterE"],
        rtol=1e-12,
    )
    np.testing.assert_allclose(tables.apply(sample).cells, 1.3 * sample["clusterE"], rtol=1e-12)


def test_cells_at_two_sigma_and_below_are_left_alone(rng):
    sample = known(rng, 30)
    energy = sample.cells["cluster_cell_E"].copy()
    energy[::5] *= -1.0
    sigma = np.full(len(sample.geo), np.float32(0.5 * np.median(np.abs(energy))))
    geo = dataclasses.replace(sample.geo, sigma=sigma)
    sample = dataclasses.replace(sample, geo=geo, cells={**sample.cells, "cluster_cell_E": energy})
    tables = flat_tables(PLAIN, weight=(2.0, 2.0))
    owner = np.repeat(np.arange(30), np.diff(sample.offsets))
    high = np.abs(energy) > 2.0 * sigma[0]
    expected = np.bincount(owner, weights=np.where(high, 2.0, 1.0) * energy.astype(np.float64))
    assert 0.2 < high.mean() < 0.8
    np.testing.assert_allclose(tables.apply(sample).cells, expected, rtol=1e-12, atol=1e-12)


def test_a_bin_of_ten_entries_is_not_used_and_one_of_eleven_is(rng):
    sample = known(rng, 4)
    cells = {name: values[sample.offsets[:-1]] for name, values in sample.cells.items()}
    # the first cell of each cluster
    single = dataclasses.replace(sample, cells=cells, offsets=np.arange(5))
    for n, used, config in ((10, 0, PLAIN), (10, 0, SMALL), (11, 1, PLAIN), (11, 1, SMALL)):
        # n times the same neutral and the same charged one
        tables = fit_lcw([single[np.repeat([0, 2], n)]], config)
        assert [np.count_nonzero(of_kind != 1.0) for of_kind in tables.weights] == [used, used]


def test_factors_outside_the_limits_count_as_one(rng):
    np.testing.assert_array_equal(
        bounded(np.array([0.29, 0.31, 2.9, 3.1, np.nan]), (0.3, 3.0)), [1.0, 0.31, 2.9, 1.0, 1.0]
    )
    np.testing.assert_allclose(
        add_out_of_cluster(np.array([1.0, 1.0, 0.0]), np.array([0.5, 2.5, 1.0]), (0.3, 3.0)),
        [1.5, 1.0, 0.0],
    )
    sample = known(rng, 20)
    wild = flat_tables(PLAIN, ooc=(9.0, 9.0), dm=(-0.9, -0.9)).apply(sample)
    assert same(wild[1:3], wild[2:4])


def test_the_factors_are_the_published_ones(rng):
    """Out of cluster: 1 + c isolation E_EM / E_weighted ooc, first neutral, then charged; dead
    material: 1 + P dm_n + (1 - P) dm_c.
    """
    sample, p = known(rng, 40), rng.random(40)
    energies = flat_tables(PLAIN, weight=(1.1, 1.4), ooc=(0.2, 0.4), dm=(0.05, 0.2)).apply(
        sample, p_em=p
    )
    isolation, e_em = sample["cluster_ISOLATION"], sample["clusterE"]
    step = energies.cells * (1.0 + p * isolation * e_em / energies.cells * 0.2)
    np.testing.assert_allclose(
        energies.ooc, step * (1.0 + (1.0 - p) * isolation * e_em / step * 0.4), rtol=1e-12
    )
    np.testing.assert_allclose(
        energies.full, energies.ooc * (1.0 + p * 0.05 + (1.0 - p) * 0.2), rtol=1e-12
    )


def test_scaled_tables_bring_the_medians_to_one_where_the_means_do_not(rng):
    """Clusters with a long tail of out-of-cluster energy: the mean is not the median."""
    sample = known(rng, 6000)
    tail = rng.exponential(0.2, 6000)
    sample = dataclasses.replace(
        sample, scalars={**sample.scalars, E_OUT: tail * sample["clusterE"]}
    )
    target = sample[E_TOT] + sample[E_OUT]
    away = []
    for config in (PLAIN, SMALL):
        response = fit_lcw([sample], config).apply(sample).ooc / target
        away.append(
            max(abs(np.median(response[sample.is_em == side]) - 1.0) for side in (True, False))
        )
    assert away[0] > 0.02
    assert away[1] < 0.01


def test_below_the_range_of_the_medians_the_factors_go_on_as_above_it(rng):
    """Charged clusters read 20 % low in the range and 50 % low below it; all are to be lifted by
    what the range asks for.
    """
    n = 9000
    e_true = 10.0 ** rng.uniform(-0.5, 2.0, n)
    measured = np.where(e_true >= 1.0, 0.8, 0.5) * e_true
    bins = np.clip(np.searchsorted([0.5, 5.0], measured), 0, 2)
    nothing = np.zeros(n)
    sums = np.column_stack([nothing, measured, measured])
    record = ClusterRecord(
        np.ones(n, np.bool_), nothing, bins, bins, bins, sums, sums[:, 1:], measured, *[nothing],
        e_true, nothing, nothing,
    )  # fmt: skip
    record = record._replace(charged=np.arange(n) % 10 != 0)
    weights = np.ones(SMALL.weight_shape)
    scaled, energy = close_cells(record, weights, weights > 0.0, SMALL)
    np.testing.assert_allclose(scaled[1, 0, 0, 1:, 0], 1.25, rtol=0.01)
    assert scaled[1, 0, 0, 0, 0] == pytest.approx(1.25, rel=0.05)
    assert np.median((energy / e_true)[e_true > 1.0]) == pytest.approx(1.0, abs=0.01)
    none = record._replace(e_tot=np.full(n, 0.5))  # no cluster is in the range
    np.testing.assert_allclose(close_cells(none, weights, weights > 0.0, SMALL)[0], 1.0)


def test_chunks_do_not_change_the_tables(rng):
    sample = known(rng, 600)
    whole, parts = (
        fit_lcw([sample], SMALL),
        fit_lcw(lambda: (sample[i : i + 100] for i in range(0, 600, 100)), SMALL),
    )
    np.testing.assert_array_equal(whole.likelihood.content, parts.likelihood.content)
    for name in ("weights", "ooc", "dm"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(parts, name))


def test_a_generator_is_refused_as_it_ends_after_one_pass(rng):
    with pytest.raises(ValidationError, match="one pass"):
        fit_lcw(iter([known(rng, 20)]))


def test_one_kind_alone_is_refused(rng):
    sample = known(rng, 40)
    with pytest.raises(ValidationError, match="both classes"):
        fit_lcw([sample[sample.is_em]])


@pytest.mark.parametrize("p_em", [np.full(9, 0.5), np.full(10, 1.1), np.full(10, np.nan)])
def test_what_is_not_one_probability_a_cluster_is_refused(rng, p_em):
    with pytest.raises(ValidationError, match="p_em"):
        flat_tables(PLAIN).apply(known(rng, 10), p_em=p_em)


def test_a_cell_that_is_not_in_the_geometry_is_named(rng):
    sample = known(rng, 10)
    cells = sample.cells["cluster_cell_ID"].copy()
    cells[sample.offsets[3]] = 10**6
    with pytest.raises(ValidationError, match="cluster 3: cell 1000000"):
        flat_tables(PLAIN).apply(
            dataclasses.replace(sample, cells={**sample.cells, "cluster_cell_ID": cells})
        )


@pytest.mark.parametrize(
    "options",
    [
        {"content": "median"},
        {"n_energy": 0},
        {"factor_range": (3.0, 0.3)},
        {"density_ranges": ((0.0, 1.0),)},
        {"closure_iterations": -1},
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(options):
    with pytest.raises(ConfigError, match="LcwConfig"):
        LcwConfig(**options)


def test_tables_of_another_binning_are_refused():
    tables = flat_tables(PLAIN)
    with pytest.raises(ValidationError, match="LCW table weights"):
        dataclasses.replace(tables, config=LcwConfig())


@pytest.fixture
def path(rng, tmp_path):
    sample: Sample = make_sample(rng, 400)
    write_sample(tmp_path / "pions.root", sample)
    return tmp_path / "pions.root"


def test_a_file_is_derived_from_one_split_and_applied_in_file_order(rng, path):
    told: list[int] = []
    tables = derive_lcw(path, config=SMALL, progress=told.append)
    assert sum(told) == 2 * 400
    assert tables.provenance["sample"] == "pions.root"
    assert 200 < sum(tables.provenance["n_clusters"].values()) < 350
    whole = apply_lcw(path, tables)
    assert same(whole, apply_lcw(path, tables, step=70))
    p = rng.random(400)
    assert same(apply_lcw(path, tables, p_em=p), apply_lcw(path, tables, p_em=p, step=70))
    with pytest.raises(ValidationError, match="401 values"):
        apply_lcw(path, tables, p_em=np.full(401, 0.5))
    with pytest.raises(ConfigError, match="split must be one of"):
        derive_lcw(path, split="tests")


def test_tables_are_derived_once_and_kept_by_what_they_depend_on(path, monkeypatch):
    first = cached_lcw(path, config=SMALL)
    monkeypatch.setattr("pfcalib.calibration.lcw.derive_lcw", None)  # would fail
    assert cached_lcw(path, config=SMALL) == first
    assert first.parent.parent == path.parent
    with pytest.raises(TypeError):
        cached_lcw(path, config=PLAIN)
    assert LcwTables.load(first).config == SMALL
