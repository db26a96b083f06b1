"""Substructure and grooming of jets whose answers are known."""

from __future__ import annotations

import awkward as ak
import numpy as np
import pytest

pytest.importorskip("fastjet")

from pfcalib.jets.fastcalo import four_momentum
from pfcalib.jets.grooming import pt_eta_phi_mass, soft_drop, total, trim
from pfcalib.jets.substructure import substructure

PT = 1000.0


def jets(*prongs):
    """Jets of massless prongs, each (pT, eta, phi)."""
    lists = []
    for jet in prongs:
        columns = four_momentum(*np.array(jet, dtype=float).T)
        lists.append([dict(zip(("px", "py", "pz", "E"), row, strict=True)) for row in columns])
    return ak.Array(lists)


def found(*prongs):
    constituents = jets(*prongs)
    return substructure(constituents, constituents)


@pytest.mark.parametrize("z", [0.15, 0.3, 0.5])
@pytest.mark.parametrize("phi", [0.0, 3.12])
def test_two_prongs(z, phi):
    r = 0.1
    of = found([(z * PT, 0.3, phi), ((1.0 - z) * PT, 0.3, phi + r)])
    assert of["mass"][0] == pytest.approx(PT * r * np.sqrt(z * (1.0 - z)), rel=1e-3)
    assert of["d12"][0] == pytest.approx(z * PT * r, rel=1e-3)
    assert of["q_w"][0] == pytest.approx(of["mass"][0], rel=1e-6)
    assert of["z_soft_drop"][0] == pytest.approx(z, rel=1e-3)
    assert of["r_soft_drop"][0] == pytest.approx(r, rel=1e-3)
    for name in ("c2", "d2", "tau21", "tau32", "d23"):
        assert of[name][0] == 0.0


def test_three_equal_prongs_on_a_triangle():
    r = 0.1
    height = 0.5 * np.sqrt(3.0) * r
    of = found([(PT / 3, 0.0, 0.0), (PT / 3, r, 0.0), (PT / 3, 0.5 * r, height)])
    # e2 = 3 (1/9) r, e3 = (1/27) r^3
    assert of["e2"][0] == pytest.approx(r / 3.0, rel=2e-3)
    assert of["c2"][0] == pytest.approx(r / 3.0, rel=2e-3)
    assert of["d2"][0] == pytest.approx(1.0, rel=5e-3)
    assert of["d23"][0] == pytest.approx(PT / 3.0 * r, rel=2e-3)
    assert of["d12"][0] == pytest.approx(PT / 3.0 * height, rel=2e-3)
    assert of["mass"][0] == pytest.approx(PT * r / np.sqrt(3.0), rel=2e-3)
    assert of["q_w"][0] == pytest.approx(PT / 3.0 * r, rel=2e-3)
    assert of["tau32"][0] == pytest.approx(0.0, abs=1e-9)
    # the winner of the first pair is one of two axes: one prong of three is r away
    assert of["tau21"][0] == pytest.approx(0.5, rel=2e-2)


def many(rng, n_jets=20, n=30):
    return [
        np.stack([rng.exponential(20.0, n), *rng.normal(0.0, 0.2, (2, n))], -1)
        for _ in range(n_jets)
    ]


def test_correlators_are_the_sums_that_define_them():
    several = many(np.random.default_rng(1))
    of = found(*several)
    for i, jet in enumerate(several):
        pt = jet[:, 0] / jet[:, 0].sum()
        # FastJet has rapidities, and these are massless
        d = np.hypot(*(jet[:, None, k] - jet[:, k] for k in (1, 2)))
        e2 = 0.5 * pt @ d @ pt
        e3 = np.einsum("i,j,k,ij,jk,ik->", pt, pt, pt, d, d, d, optimize=True) / 6.0
        assert of["e2"][i] == pytest.approx(e2, rel=1e-6)
        assert of["c2"][i] == pytest.approx(e3 / e2**2, rel=1e-6)
        assert of["d2"][i] == pytest.approx(e3 / e2**3, rel=1e-6)


def test_nothing_but_the_direction_changes_with_the_direction():
    several = many(np.random.default_rng(2))
    turned = [jet + np.array([0.0, 0.7, 2.9]) for jet in several]
    before, after = found(*several), found(*turned)
    for name in before.keys() - {"eta", "phi"}:
        assert after[name] == pytest.approx(before[name], rel=1e-6, abs=1e-9), name


def test_a_jet_of_one_constituent_has_no_structure():
    of = found([(PT, 0.1, 0.2)])
    assert all(np.isfinite(values).all() for values in of.values())
    assert of["d2"][0] == of["tau21"][0] == of["d12"][0] == of["q_w"][0] == 0.0


@pytest.mark.parametrize(("share", "n"), [(0.045, 1), (0.055, 2)])
def test_trimming_drops_subjets_of_less_than_its_share(share, n):
    groomed, subjets = trim(jets([((1.0 - share) * PT, 0.0, 0.0), (share * PT, 0.4, 0.4)]))
    assert ak.num(groomed).tolist() == ak.num(subjets).tolist() == [n]
    assert pt_eta_phi_mass(total(groomed))[0, 0] == pytest.approx(
        pt_eta_phi_mass(total(subjets))[0, 0]
    )


def test_soft_drop_goes_on_until_the_softer_branch_is_hard_enough():
    left = soft_drop(jets([(700.0, 0.0, 0.0), (250.0, 0.2, 0.0), (50.0, 0.0, 0.6)]))
    assert left.distance[0] == pytest.approx(0.2, rel=1e-6)
    assert left.z[0] == pytest.approx(250.0 / 950.0, rel=1e-6)
    assert left.mass[0] == pytest.approx(
        np.sqrt(2 * 700.0 * 250.0 * (np.cosh(0.2) - 1.0)), rel=1e-6
    )
