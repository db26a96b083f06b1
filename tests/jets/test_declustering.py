"""Trees and shapes of jets against FastJet, closed formulas and symmetries."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from pfcalib.jets.declustering import (
    FEATURES,
    SHAPES,
    cut_kt,
    decluster,
    join_trees,
    write_graphs,
)

fastjet = pytest.importorskip("fastjet")


def momenta_of(pt, y, phi):
    """Massless particles."""
    return np.stack([pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(y), pt * np.cosh(y)], axis=-1)


def some_jets(n_jets=20, seed=1):
    """Jets of 2 to 40 particles about some axes, across the end of the azimuth too."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(2, 41, n_jets)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    n = offsets[-1]
    axis = (
        np.repeat(rng.uniform(-2.0, 2.0, n_jets), sizes),
        np.repeat(np.pi * np.ones(n_jets), sizes),
    )
    y, phi = (a + rng.normal(0.0, 0.3, n) for a in axis)
    return momenta_of(rng.exponential(20.0, n) + 0.2, y, phi), offsets


def reference(jet, found):
    """Features of a FastJet pseudojet and all below, first the harder branch."""
    one, two = fastjet.PseudoJet(), fastjet.PseudoJet()
    if not jet.has_parents(one, two):
        return
    if two.pt() > one.pt():
        one, two = two, one
    delta = one.delta_R(two)
    z = two.pt() / (one.pt() + two.pt())
    psi = np.arctan2(two.rap() - one.rap(), one.delta_phi_to(two))
    found.append([np.log(two.pt() * delta), np.log(delta), np.log(z), np.log(jet.m()), psi])
    reference(one, found)
    reference(two, found)


def test_the_tree_is_that_of_fastjet():
    momenta, offsets = some_jets()
    trees, _ = decluster(momenta, offsets)
    definition = fastjet.JetDefinition(fastjet.cambridge_algorithm, 100.0)
    for i, (a, b) in enumerate(itertools.pairwise(offsets)):
        inputs = [fastjet.PseudoJet(*p) for p in momenta[a:b]]
        sequence = fastjet.ClusterSequence(inputs, definition)
        (jet,) = sequence.inclusive_jets()
        expected = []
        reference(jet, expected)
        found = trees.nodes[trees.offsets[i] : trees.offsets[i + 1]]
        np.testing.assert_allclose(found, np.array(expected), rtol=1e-4, atol=2e-4)


def test_turning_and_boosting_a_jet_along_the_beam_changes_nothing():
    momenta, offsets = some_jets()
    pt, phi = np.hypot(momenta[:, 0], momenta[:, 1]), np.arctan2(momenta[:, 1], momenta[:, 0])
    y = np.arctanh(momenta[:, 2] / momenta[:, 3])
    moved = decluster(momenta_of(pt, y + 0.7, phi + 2.0), offsets)
    trees, shapes = decluster(momenta, offsets)
    np.testing.assert_allclose(moved[0].nodes, trees.nodes, rtol=1e-4, atol=1e-3)
    np.testing.assert_array_equal(moved[0].mother, trees.mother)
    np.testing.assert_allclose(moved[1], shapes, rtol=1e-3, atol=1e-4)


def test_shapes_of_three_particles_follow_their_formulas():
    pt, y, phi = np.array([40.0, 30.0, 20.0]), np.array([0.0, 0.4, 0.5]), np.array([0.0, 0.3, 0.1])
    momenta = momenta_of(pt, y, phi)
    _, (shape,) = decluster(momenta, np.array([0, 3]))
    found = dict(zip(SHAPES, shape, strict=True))
    z = pt / pt.sum()
    apart = np.hypot(y[:, None] - y, phi[:, None] - phi)
    e2 = z[0] * z[1] * apart[0, 1] + z[0] * z[2] * apart[0, 2] + z[1] * z[2] * apart[1, 2]
    e3 = z.prod() * apart[0, 1] * apart[0, 2] * apart[1, 2]
    # 2 and 3 are merged first, by both algorithms; the axis is that of 2, the harder of them
    tau1 = z[0] * apart[0, 1] + z[2] * apart[1, 2]
    tau2 = z[2] * apart[1, 2]
    total = momenta.sum(axis=0)
    mass = np.sqrt(total[3] ** 2 - (total[:3] ** 2).sum())
    assert found["mass"] == pytest.approx(mass, rel=1e-5)
    assert found["mass_sd"] == pytest.approx(mass, rel=1e-5)
    assert found["c2"] == pytest.approx(e3 / e2**2, rel=1e-5)
    assert found["d2"] == pytest.approx(e3 / e2**3, rel=1e-5)
    assert found["tau21"] == pytest.approx(tau2 / tau1, rel=1e-5)
    assert found["sqrt_d12"] == pytest.approx(40.0 * apart[0, 1], rel=1e-5)
    assert found["ptd"] == pytest.approx(np.sqrt((z**2).sum()), rel=1e-5)


def test_soft_drop_takes_soft_particles_at_wide_angles_away():
    rng = np.random.default_rng(2)
    pair = momenta_of(np.array([300.0, 200.0]), np.array([0.0, 0.3]), np.zeros(2))
    soft = momenta_of(np.full(5, 1.0), rng.uniform(0.7, 0.9, 5), rng.uniform(-0.5, 0.5, 5))
    _, (alone, with_soft) = decluster(np.concatenate([pair, pair, soft]), np.array([0, 2, 9]))
    kept = [SHAPES.index(name) for name in ("mass_sd", "z_g", "r_g", "ptd", "sqrt_d12")]
    np.testing.assert_allclose(with_soft[kept], alone[kept], rtol=1e-6)
    assert with_soft[0] > alone[0] * 1.01
    assert with_soft[SHAPES.index("z_g")] == pytest.approx(0.4, rel=1e-3)


def test_a_cut_on_kt_is_that_of_a_walk_through_the_tree():
    trees, _ = decluster(*some_jets(seed=3))
    least = float(np.median(trees.nodes[:, 0]))
    cut = cut_kt(trees, least)
    for i in range(trees.n_jets):
        a, b = trees.offsets[i : i + 2]
        branches = {(int(m), bool(s)): k for k, (m, s) in
                    enumerate(zip(trees.mother[a:b], trees.softer[a:b], strict=True))}  # fmt: skip
        expected = []

        def walk(k, above, side):
            while k is not None and trees.nodes[a + k, 0] < least:  # noqa: B023
                k = branches.get((k, False))  # noqa: B023
            if k is not None:
                place = len(expected)  # noqa: B023
                expected.append((above, side, *trees.nodes[a + k]))  # noqa: B023
                for branch in (False, True):
                    walk(branches.get((k, branch)), place, branch)  # noqa: B023

        walk(branches.get((-1, False)), -1, False)
        part = slice(*cut.offsets[i : i + 2])
        found = np.column_stack([cut.mother[part], cut.softer[part], cut.nodes[part]])
        np.testing.assert_allclose(found, np.array(expected).reshape(-1, 7))


def test_neighbours_of_a_graph_point_at_each_other_and_the_first_nodes_stay():
    trees, _ = decluster(*some_jets())
    rows = np.arange(trees.n_jets)
    for room in (40, 8):
        graph = write_graphs(trees, rows, room)
        sizes = np.minimum(np.diff(trees.offsets), room)
        there = graph["nodes"][..., FEATURES.index("ln_z")] < -0.1
        np.testing.assert_array_equal(there.sum(axis=1), sizes)
        for i, size in enumerate(sizes):
            neighbours = graph["neighbours"][i].astype(int)
            for k in range(size):
                mother = neighbours[k, 0]
                assert (mother == -1) == (k == 0)
                assert k == 0 or k in neighbours[mother, 1:]
            assert (neighbours[size:] == -1).all()
            assert (neighbours < size).all()


def test_taking_and_joining_jets_goes_there_and_back():
    trees, _ = decluster(*some_jets())
    rows = np.arange(trees.n_jets)
    again = join_trees([trees.take(rows[:7]), trees.take(rows[7:])])
    for found, expected in zip(again, trees, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert trees.primary[trees.offsets[:-1]].all()
