"""The tables from formulas: known values of the cross sections, and files that read back as they
were meant.
"""

import numpy as np
import pytest

from pfcalib.simulation.geant4 import formulas
from pfcalib.simulation.geant4.tables import format_vector, write_bremsstrahlung, write_neutrons


@pytest.mark.parametrize(
    ("z", "mass", "x0"), [(13, 26.98, 24.01), (26, 55.845, 13.84), (82, 207.2, 6.37)]
)
def test_bremsstrahlung_gives_the_radiation_length(z, mass, x0):
    """Energy lost to photons at 10 GeV is E / X0 to a few per cent; X0 in g/cm2 from the Particle
    Data Group.
    """
    kappa = np.linspace(0.0, 1.0, 2001)
    chi = formulas.bremsstrahlung(z, 1e4, kappa)  # mb, (beta^2 / Z^2) k dsigma / dk
    loss = 6.02214e23 / mass * z**2 * np.trapezoid(chi, kappa) * 1e-27  # of the energy, per g/cm2
    assert 1.0 / loss == pytest.approx(x0, rel=0.05)


def test_bremsstrahlung_of_hydrogen_in_complete_screening():
    value = formulas.bremsstrahlung(1, 1e4, [0.0])[0]
    expected = (
        16.0 / 3.0 * formulas.ALPHA * (2.8179403e-13) ** 2 * 1e27 * (5.3104 + 5.9173 + 1.0 / 6.0)
    )
    assert value == pytest.approx(expected, rel=1e-3)


def test_neutron_cross_sections_join_geant4_at_20_mev():
    top = np.array([20.0])
    for z, (inelastic, elastic) in formulas.GLAUBER_GRIBOV.items():
        assert formulas.neutron_inelastic(z, 1.0, top)[0] == pytest.approx(inelastic, rel=1e-6)
        assert formulas.neutron_elastic(z, 1.0, top)[0] == pytest.approx(elastic, rel=0.05)


def test_neutrons_below_the_first_levels_do_not_scatter_inelastically():
    assert not formulas.neutron_inelastic(26, 55.8, np.array([1e-8, 0.1, 0.3])).any()


def test_capture_is_the_thermal_value_at_thermal_energy():
    for z, value in formulas.THERMAL_CAPTURE.items():
        assert formulas.neutron_capture(z, np.array([formulas.THERMAL]))[0] == pytest.approx(value)


def test_a_vector_reads_back():
    x, y = np.geomspace(1e-4, 1e5, 50), np.linspace(1.0, 2.0, 50)
    first, count, *rows = format_vector(x, y).splitlines()
    assert (first.split()[2], count) == ("50", "50")
    assert np.array([row.split() for row in rows], float) == pytest.approx(
        np.column_stack([x, y]), rel=1e-7
    )


def test_a_bremsstrahlung_file_reads_back(tmp_path):
    write_bremsstrahlung(tmp_path / "br26", 26)
    kind, n_kappa, n_kinetic, *numbers = (tmp_path / "br26").read_text().split()
    n_kappa, n_kinetic, numbers = int(n_kappa), int(n_kinetic), np.array(numbers, float)
    assert kind == "0"
    assert len(numbers) == n_kappa + n_kinetic + n_kappa * n_kinetic
    kappa, log_kinetic = numbers[:n_kappa], numbers[n_kappa : n_kappa + n_kinetic]
    table = numbers[n_kappa + n_kinetic :].reshape(n_kinetic, n_kappa)
    assert table[-1] == pytest.approx(
        formulas.bremsstrahlung(26, np.exp(log_kinetic[-1]), kappa), rel=1e-4
    )


def test_neutron_files_are_in_mm2(tmp_path):
    write_neutrons(tmp_path, 26, 55.8)
    last = (tmp_path / "inel26").read_text().splitlines()[-1].split()
    assert float(last[0]) == pytest.approx(20.0)
    assert float(last[1]) == pytest.approx(1.398e-22, rel=1e-3)
    assert {path.name for path in tmp_path.iterdir()} == {"inel26", "el26", "cap26"}
