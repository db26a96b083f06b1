"""Known answers are compared with the error of both sides."""

import pytest
from studies.engines_known import BenchmarkConfig, Benchmarks, run_benchmarks

from pfcalib.simulation.geant4.benchmarks import EM3_LAR, EM3_LEAD, Em3Report, Measured


@pytest.fixture
def known():
    lar, lead = (
        Measured(EM3_LAR[0] + 2.0 * EM3_LAR[1], 0.0),
        Measured(EM3_LEAD[0] - EM3_LEAD[1], EM3_LEAD[1]),
    )
    return Benchmarks(
        Em3Report(lar, lead, "Geant4"),
        Measured(0.86, 0.01),
        {2.0: Measured(0.10, 0.01), 5.0: Measured(0.13, 0.02)},
    )


def test_pulls_count_errors_of_both_sides(known):
    assert known.em3_pulls == pytest.approx({"LAr": 2.0, "Pb": -(0.5**0.5)})


def test_the_term_is_the_weighted_mean(known):
    assert known.stochastic_term == pytest.approx(((0.10 * 4.0 + 0.13) / 5.0, 0.02 / 5.0**0.5))


def test_the_table_holds_all_with_what_is_known(known):
    rows = known.rows()
    assert [len(row) for row in rows] == [4] * 5
    assert rows[-1][0] == "electrons, 5 GeV, rms / mean x sqrt(E)"
    assert rows[1][3] == f"{EM3_LEAD[0]} ± {EM3_LEAD[1]}"


def test_all_runs_are_made():
    found = run_benchmarks(
        BenchmarkConfig(n_em3=4, n_tile=4, n_electrons=4, electron_energies=(1.0, 0.5)),
        n_processes=2,
    )
    assert found.em3.lar.value == pytest.approx(216.0, abs=60.0)
    assert 0.0 < found.pi_over_e.value < 1.5
    assert list(found.electrons) == [0.5, 1.0]
