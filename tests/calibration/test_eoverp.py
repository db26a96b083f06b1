"""Fits give back the Gaussians that they are given, a pion made by hand has the E/p that was put
in, and the file of a table says the same to correctionlib and to kernels.
"""

from __future__ import annotations

import dataclasses
import json
import math

import correctionlib
import numpy as np
import pytest
from numba import njit
from scipy.stats import kstest

from pfcalib.calibration.eoverp import (
    ALL_LAYERS,
    FITTED,
    MOMENTS,
    NO_CLUSTER,
    PION_MASS,
    QUANTITIES,
    EoverPArrays,
    EoverPConfig,
    EoverPTable,
    Pions,
    derive_eoverp,
    expected_deposit,
    fit_core,
    fit_eoverp,
    measure_pions,
)
from pfcalib.calibration.rings import N_LAYERS, N_RINGS, RING_WIDTHS, distance_to, ring_cells
from pfcalib.columns import COLUMNS, LAYER_NAMES
from pfcalib.errors import BadFileError, ConfigError, ValidationError
from pfcalib.geometry import BARREL
from pfcalib.samples.schema import CellGeo, Sample
from pfcalib.samples.split import split_of
from pfcalib.samples.write import write_sample
from pfcalib.simulation.particles import Particles
from pfcalib.simulation.refine import point

EMB1, EMB2, EMB3, TILE0 = 1, 2, 3, 4
SMALL = EoverPConfig(energy_edges=(1.0, 2.0, 4.0, 8.0), eta_edges=(0.0, 0.5, 0.8))


# What a pion leaves


def track_of(pdg_id, energy, eta, phi):
    """Eta and phi at each layer."""
    one = Particles(*(np.array([x]) for x in (0, pdg_id, energy, eta, phi)))
    return point(one, BARREL, field=2.0)[:, 0]


def make_pions(shots):
    """A sample of pions (event, pdg_id, energy, eta, phi, clusters); a cluster is (energy, distance
    in eta from the track at EMB2, cells), a cell (layer, distance in eta from the track there,
    energy).
    """
    geo = CellGeo.from_grid(BARREL, 0.02)
    rows, counts, ids, energies = [], [], [], []
    for event, pdg_id, energy, eta, phi, clusters in shots:
        eta_at, phi_at = track_of(pdg_id, energy, eta, phi)
        for cluster_e, off, cells in clusters:
            where = (eta_at[EMB2] + off, phi_at[EMB2])
            rows.append((event, pdg_id, energy, eta, phi, cluster_e, *where))
            counts.append(len(cells))
            for layer, d_eta, cell_e in cells:
                ids.append(int(BARREL.locate(layer, eta_at[layer] + d_eta, phi_at[layer])))
                energies.append(cell_e)
    names = ("eventNumber", "truthPdgId", "truthE", "truthEta", "truthPhi")
    names += ("clusterE", "clusterEta", "clusterPhi")
    columns = dict(zip(names, np.array(rows, dtype=np.float64).T, strict=True))
    cells = {"cluster_cell_ID": np.array(ids), "cluster_cell_E": np.array(energies)}
    columns, cells = (
        {name: values.astype(COLUMNS[name].dtype) for name, values in arrays.items()}
        for arrays in (columns, cells)
    )
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Sample(columns, offsets, cells, geo, {"generator": "by hand"})


@pytest.fixture
def by_hand(tmp_path):
    """A pion with clusters in and out of the cone, one with none in it, a kaon, and a pion that
    curls up in the field.
    """
    near = [(1.5, 0.1, [(EMB2, 0.0, 1.49), (EMB1, 0.0, 0.01)]), (0.5, -0.39, [(EMB3, 0.2, 0.5)])]
    path = tmp_path / "pions.root"
    shots = [
        (3, 211, 4.0, 0.3, 3.1, [*near, (2.0, 0.41, [(TILE0, 0.0, 2.0)])]),
        (7, -211, 2.0, -0.6, -1.0, [(0.2, 0.6, [(EMB2, 0.6, 0.2)])]),
        (8, 321, 3.0, 0.1, 0.0, [(1.0, 0.0, [(EMB2, 0.0, 1.0)])]),
        (9, 211, 0.35, 0.1, 0.0, [(0.2, 0.0, [(EMB2, 0.0, 0.2)])]),
    ]
    write_sample(path, make_pions(shots))
    return path


def test_a_pion_made_by_hand_has_the_energy_of_the_clusters_in_the_cone(by_hand):
    pions = measure_pions(by_hand, SMALL)
    assert pions.p == pytest.approx([math.sqrt(e**2 - PION_MASS**2) for e in (4.0, 2.0)])
    assert pions.eta == pytest.approx([0.3, -0.6])
    assert pions.energy == pytest.approx([2.0, 0.0])
    assert pions.layer.tolist() == [EMB2, NO_CLUSTER]


def test_a_cell_adds_its_energy_over_the_volume_of_its_ring(by_hand):
    density = measure_pions(by_hand, SMALL).density[1, 0, EMB2]  # of 2 to 4 GeV
    cells = ring_cells(CellGeo.from_grid(BARREL))
    eta_at, phi_at = track_of(211, 4.0, 0.3, 3.1)
    cell = int(BARREL.locate(EMB3, eta_at[EMB3] + 0.2, phi_at[EMB3]))
    ring = int(distance_to(cells, cell, eta_at, phi_at) / RING_WIDTHS[EMB3])
    depth = cells.volume[cell] / (cells.d_eta[cell] * cells.d_phi[cell])  # of a unit of area
    area = math.pi * RING_WIDTHS[EMB3] ** 2 * ((ring + 1) ** 2 - ring**2)
    assert density[EMB3, ring] == pytest.approx(0.5 / (area * depth), rel=1e-6)
    assert np.argwhere(density).tolist() == [[EMB1, 0], [EMB2, 0], [EMB3, ring]]


def test_chunks_do_not_tear_pions_apart(tmp_path):
    clusters = [(0.3 + 0.1 * k, 0.01 * k, [(EMB2, 0.01 * k, 0.3 + 0.1 * k)]) for k in range(3)]
    shots = [(event, 211, 3.0, 0.02 * event, 0.3, clusters) for event in range(9)]
    write_sample(tmp_path / "pions.root", make_pions(shots))
    seen = []
    whole = measure_pions(tmp_path / "pions.root", SMALL, progress=seen.append)
    assert sum(seen) == 27
    assert whole.energy == pytest.approx(np.full(9, 1.2))
    for step in (1, 4, 5):
        for a, b in zip(
            measure_pions(tmp_path / "pions.root", SMALL, step=step), whole, strict=True
        ):
            np.testing.assert_allclose(a, b, rtol=1e-12)


def test_files_count_together_and_a_split_takes_its_events(tmp_path):
    shots = [(event, 211, 3.0, 0.1, 0.3, [(1.0, 0.0, [(EMB2, 0.0, 1.0)])]) for event in range(40)]
    for name in ("a.root", "b.root"):
        write_sample(tmp_path / name, make_pions(shots))
    both = measure_pions([tmp_path / "a.root", tmp_path / "b.root"], SMALL)
    assert len(both.p) == 80
    test = measure_pions(tmp_path / "a.root", SMALL, split="test")
    assert len(test.p) == np.sum(split_of(np.arange(40)) == 2)


# Fits


def test_gaussian_toys_give_back_mean_and_width_with_right_errors(rng):
    fits = [fit_core(rng.normal(0.7, 0.15, 400)) for _ in range(100)]
    assert all(fits)
    for name, truth in (("mean", 0.7), ("sigma", 0.15)):
        values = np.array([getattr(fit, name) for fit in fits])
        pulls = (values - truth) / [getattr(fit, f"{name}_error") for fit in fits]
        assert abs(pulls.mean()) < 0.35, name
        assert 0.75 < pulls.std() < 1.25, name
    assert kstest([fit.p_value for fit in fits], "uniform").pvalue > 1e-3


def test_a_tail_does_not_move_the_core(rng):
    core, tail = rng.normal(0.8, 0.08, 4000), rng.uniform(0.05, 0.55, 600)
    fit = fit_core(np.concatenate([core, tail]))
    assert fit.mean == pytest.approx(0.8, abs=4.0 * fit.mean_error)
    assert fit.sigma == pytest.approx(0.08, abs=4.0 * fit.sigma_error)


def test_what_has_no_core_is_not_fitted(rng):
    assert fit_core(rng.normal(0.7, 0.1, 50)) is None  # too few
    assert fit_core(rng.exponential(0.3, 2000)) is None  # piled up at 0
    assert fit_core(np.full(200, 0.5)) is None  # no width
    above = rng.normal(0.7, 0.1, 400)
    assert fit_core(above, lowest=0.4)
    assert fit_core(above, lowest=0.6) is None  # cut off in the window


def toys(rng, n=4000):
    """Pions of three layers, a Gaussian each, in the bins of SMALL; a few of a fourth layer."""
    p, eta = np.exp(rng.uniform(0.0, np.log(8.0), n)), rng.uniform(-0.8, 0.8, n)
    layer = rng.choice([EMB1, EMB2, TILE0], n)
    ratio = 0.4 + 0.1 * layer + 0.05 * rng.standard_normal(n)
    layer[: n // 400] = EMB3
    return Pions(p, eta, p * ratio, layer, rng.exponential(n, (*SMALL.shape, N_LAYERS, N_RINGS)))


def test_each_bin_has_the_mean_and_the_width_of_its_pions(rng):
    table = fit_eoverp(toys(rng), SMALL)
    for layer in (EMB1, EMB2, TILE0):
        assert np.all(table.source[..., layer] == FITTED)
        pulls = (table.mean - 0.4 - 0.1 * layer) / table.mean_error
        assert np.abs(pulls[..., layer]).max() < 4.0
        pulls = (table.sigma - 0.05) / table.sigma_error
        assert np.abs(pulls[..., layer]).max() < 4.0
        assert np.all(table.p_value[..., layer] > 1e-4)
    assert table.entries.sum() == 4000
    assert table.provenance["n_pions"] == 4000


def test_without_enough_pions_a_bin_has_moments_and_with_still_fewer_those_of_all_layers(rng):
    pions = toys(rng)
    config = dataclasses.replace(SMALL, min_fit=10**6, min_moments=5)
    table = fit_eoverp(pions, config)
    here = (pions.p >= 2.0) & (pions.p < 4.0) & (np.abs(pions.eta) < 0.5)
    ratio = pions.energy / pions.p
    few = ratio[here & (pions.layer == EMB1)]
    assert table.source[1, 0, EMB1] == MOMENTS
    assert table.mean[1, 0, EMB1] == pytest.approx(few.mean(), rel=1e-5)
    assert table.sigma[1, 0, EMB1] == pytest.approx(few.std(), rel=1e-5)
    assert table.mean_error[1, 0, EMB1] == pytest.approx(few.std() / len(few) ** 0.5, rel=1e-5)
    assert table.source[1, 0, 6] == ALL_LAYERS
    assert table.entries[1, 0, 6] == 0
    assert table.mean[1, 0, 6] == pytest.approx(ratio[here].mean(), rel=1e-5)
    total = pions.density[1, 0].sum(axis=0) / here.sum()
    np.testing.assert_allclose(table.density[1, 0, 6], total, rtol=1e-3)


def test_moments_can_be_asked_for_and_a_bad_fit_does_not_count(rng):
    pions = toys(rng)
    plain = fit_eoverp(pions, dataclasses.replace(SMALL, content="moments"))
    assert not np.any(plain.source == FITTED)
    strict = fit_eoverp(pions, dataclasses.replace(SMALL, min_p_value=0.999999))
    np.testing.assert_array_equal(strict.mean, plain.mean)


def test_pions_without_a_cluster_near_by_do_not_count(rng):
    pions = toys(rng)
    silent = Pions(*(np.concatenate([x, x[:500]]) for x in pions[:4]), pions.density)
    silent.layer[-500:] = NO_CLUSTER
    np.testing.assert_array_equal(fit_eoverp(silent, SMALL).mean, fit_eoverp(pions, SMALL).mean)


def test_a_bin_without_pions_is_named(rng):
    wide = dataclasses.replace(SMALL, energy_edges=(1.0, 8.0, 16.0))
    pions = toys(rng)._replace(density=np.ones((*wide.shape, N_LAYERS, N_RINGS)))
    with pytest.raises(ValidationError, match=r"0 pions .* 8 to 16 GeV and \|eta\| of 0 to 0.5"):
        fit_eoverp(pions, wide)


# The table


@pytest.fixture
def table(rng):
    return fit_eoverp(toys(rng), SMALL, provenance={"samples": {"toy": None}})


def test_rings_are_ordered_by_falling_density_and_empty_ones_come_last(table):
    density = table.density.copy()
    density[0, 0, EMB2] = 0.0
    density[0, 0, EMB2, EMB3, 2], density[0, 0, EMB2, EMB1, 5] = 3.0, 7.0
    density[0, 0, EMB2, TILE0, 1] = -1.0  # noise
    order = dataclasses.replace(table, density=density).arrays.order
    assert order.dtype == np.int64
    assert order.shape == (3, 2, N_LAYERS, N_LAYERS * N_RINGS)
    of_bin = order[0, 0, EMB2]
    found = [divmod(int(code), N_RINGS) for code in of_bin]
    assert found[:3] == [(EMB1, 5), (EMB3, 2), (TILE0, 1)]
    rest = [(layer, 0) for layer in range(N_LAYERS)] + [(layer, 1) for layer in range(N_LAYERS)]
    rest.remove((TILE0, 1))
    assert found[3 : 3 + len(rest)] == rest
    flat = np.take_along_axis(density.reshape(3, 2, N_LAYERS, -1), order, axis=-1)
    assert np.all(np.diff(flat[1, 1], axis=-1) <= 0.0)
    assert np.all(np.sort(order, axis=-1) == np.arange(N_LAYERS * N_RINGS))


def test_what_is_expected_is_the_momentum_times_the_bin_also_beyond_the_edges(table):
    arrays = table.arrays
    assert EoverPArrays._fields == ("energy_edges", "eta_edges", "mean", "sigma", "order")
    for p, eta, place in (
        (1.0, 0.0, (0, 0)),
        (1.9999, 0.5, (0, 1)),
        (2.0, 0.499, (1, 0)),
        (0.3, 0.2, (0, 0)),  # below the first edge
        (8.0, 0.8, (2, 1)),
        (500.0, 2.4, (2, 1)),  # above the last
    ):
        mean, sigma = expected_deposit(arrays, p, eta, EMB2)
        assert mean == p * table.mean[(*place, EMB2)]
        assert sigma == p * table.sigma[(*place, EMB2)]


def test_kernels_take_the_table(table):
    @njit
    def total(table, p):
        found = 0.0
        for layer in range(table.mean.shape[2]):
            found += expected_deposit(table, p, 0.1, layer)[0]
        return found

    assert total(table.arrays, 3.0) == pytest.approx(3.0 * table.mean[1, 0].sum())


def test_a_file_gives_back_the_same_table(table, tmp_path):
    table.save(tmp_path / "new" / "eoverp.json")
    again = EoverPTable.load(tmp_path / "new" / "eoverp.json")
    for name in (*QUANTITIES, "density"):
        np.testing.assert_array_equal(getattr(again, name), getattr(table, name))
        assert getattr(again, name).dtype == getattr(table, name).dtype
    np.testing.assert_array_equal(again.arrays.order, table.arrays.order)
    assert again.config == table.config
    assert again.provenance == table.provenance


def test_correctionlib_evaluates_the_same_numbers(table, tmp_path):
    table.save(tmp_path / "eoverp.json")
    book = correctionlib.CorrectionSet.from_file(str(tmp_path / "eoverp.json"))
    assert set(book) == {*QUANTITIES, "density"}
    arrays = table.arrays
    for p, eta in ((0.5, 0.1), (2.0, 0.5), (3.3, 0.3), (99.0, 2.0)):
        for layer, name in enumerate(LAYER_NAMES):
            expected = expected_deposit(arrays, p, eta, layer)
            found = [p * book[key].evaluate(name, p, eta) for key in ("mean", "sigma")]
            assert found == pytest.approx(expected, rel=1e-12)
    for ring in (0, N_RINGS - 1):
        found = book["density"].evaluate("EMB2", "EMB3", 3.0, 0.6, float(ring))
        assert found == pytest.approx(table.density[1, 1, EMB2, EMB3, ring], rel=1e-12)


def test_a_table_is_derived_from_a_file_and_knows_it(rng, tmp_path):
    shots = [
        (i, 211, 3.0, 0.1, 0.3, [(e, 0.0, [(EMB2, 0.0, e)])])
        for i, e in enumerate(rng.normal(2.0, 0.2, 200))
    ]
    write_sample(tmp_path / "pions.root", make_pions(shots))
    config = EoverPConfig(energy_edges=(2.0, 4.0), eta_edges=(0.0, 0.8))
    table = derive_eoverp(tmp_path / "pions.root", config)
    assert table.mean[0, 0, EMB2] == pytest.approx(2.0 / 3.0, abs=0.02)
    assert table.provenance["samples"] == {"pions.root": None}
    assert table.provenance["split"] == "all"
    with pytest.raises(ConfigError, match="split must be one of"):
        derive_eoverp(tmp_path / "pions.root", config, split="half")
    with pytest.raises(BadFileError, match=r"nowhere\.root: no such file"):
        derive_eoverp(tmp_path / "nowhere.root", config)


def test_the_packaged_table_is_sound():
    """Pions leave more of their momentum the more of it they have, and the later the shower."""
    table = EoverPTable.load()
    assert table.config == EoverPConfig()
    assert table.provenance["n_pions"] > 50_000
    arrays = table.arrays
    low, high = (expected_deposit(arrays, p, 0.2, EMB1) for p in (2.2, 30.0))
    assert low[0] / 2.2 < high[0] / 30.0 < 1.0
    assert high[1] / high[0] < low[1] / low[0]
    assert np.all((table.mean > 0.2) & (table.mean < 1.0))
    rings = arrays.order[10, 0, EMB2] // N_RINGS
    assert rings[0] == EMB2  # the layer that is densest comes first


# What is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"energy_edges": (1.0,)}, "energy_edges must rise"),
        ({"energy_edges": (2.0, 1.0)}, "energy_edges must rise"),
        ({"eta_edges": (-0.1, 0.8)}, "eta_edges must rise from 0"),
        ({"energy_edges": (0.0, 1.0)}, "first of energy_edges must be above 0 GeV"),
        ({"threshold": -0.1}, "threshold and min_p_value must not be negative"),
        ({"cone": 0.0}, "cone, window, min_fit and min_moments must be positive"),
        ({"window": (1.5, -2.0)}, "must be positive"),
        ({"content": "median"}, "content must be one of core, moments, not 'median'"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        EoverPConfig(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": np.ones((3, 2))}, r"mean has shape \(3, 2\), expected \(3, 2, 7\)"),
        ({"density": np.full((3, 2, 7, 7, 24), np.nan)}, "density .* of finite numbers"),
        ({"sigma": np.zeros((3, 2, 7))}, "sigma must be positive"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused(table, changes, message):
    with pytest.raises(ValidationError, match=message):
        dataclasses.replace(table, **changes)


def _damage(text, what):
    stored = json.loads(text)
    first = stored["corrections"][0]
    data = first["data"]["content"][0]["value"]
    if what == "version":
        first["version"] = 2
    elif what == "missing":
        del stored["corrections"][1]
    elif what == "short":
        data["content"].pop()
    elif what == "flow":
        data["flow"] = "error"
    elif what == "nan":
        data["content"][0] = float("nan")
    elif what == "moved":
        data["edges"][0][1] += 0.01
    elif what == "layer":
        first["data"]["content"][0]["key"] = "EMB9"
    elif what == "config":
        stored["description"] = stored["description"].replace('"core"', '"guess"')
    return text[:1000] if what == "cut" else json.dumps(stored)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("version", "not of version 1"),
        ("missing", "'sigma' is missing"),
        ("short", "not a table of E/p"),
        ("flow", "does not clamp"),
        ("nan", "not a table of E/p"),
        ("moved", "mean has other edges"),
        ("layer", "mean has other edges"),
        ("config", "content must be one of"),
        ("cut", "not a table of E/p"),
    ],
)
def test_a_broken_file_is_named(table, tmp_path, what, message):
    path = tmp_path / "eoverp.json"
    table.save(path)
    path.write_text(_damage(path.read_text(), what))
    with pytest.raises(BadFileError, match=rf"eoverp\.json: .*{message}"):
        EoverPTable.load(path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(BadFileError, match=r"nowhere\.json"):
        EoverPTable.load(tmp_path / "nowhere.json")
