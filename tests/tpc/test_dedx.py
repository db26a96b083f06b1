"""Energy loss in a drift chamber: the curve, its width, tracks, and tables that users own."""

import numpy as np
import pytest
import uproot
from scipy.stats import kstest

from pfcalib.errors import BadFileError, ConfigError
from pfcalib.tpc.dedx import (
    COLUMNS,
    MASS,
    MIP,
    SIGNAL,
    PidConfig,
    TpcTracks,
    distortion,
    expected_signal,
    expected_width,
    read_tracks,
    simulate_tracks,
)
from pfcalib.tpc.pidnets import Uncorrected, n_sigma


def test_the_curve_has_the_known_shape():
    """Falls as about beta^-5/3, is least at 3 to 4, rises by 50 to 80 % to a plateau in gas."""
    bg = np.geomspace(0.3, 1e5, 3000)
    signal = expected_signal(bg)
    assert 3.0 < bg[np.argmin(signal)] < 4.0
    assert signal.min() == pytest.approx(MIP, rel=0.06)
    assert 1.5 < signal[-1] / signal.min() < 1.9
    soft = expected_signal(np.array([0.2, 0.4]))
    slope = np.log(soft[1] / soft[0]) / np.log(2.0)
    assert -2.2 < slope < -1.5


def test_the_width_is_about_that_of_the_detector():
    """5 to 6 % at minimum ionisation with all clusters, as published (arXiv:1402.4476)."""
    row = [0.5, 0.0, 2.0, MASS["pion"], 0.0, 1.0, 0.0]
    full, half = [*row], [*row]
    half[5] = np.sqrt(2.0)
    widths = expected_width(TpcTracks(np.array([full, half]), np.ones(2)))
    assert 0.05 < widths[0] < 0.062
    assert widths[1] / widths[0] == pytest.approx(2.0**0.25, rel=0.03)


def test_without_distortion_the_formula_is_right():
    tracks = simulate_tracks(PidConfig(n_tracks=20_000, distorted=False))
    assert kstest(n_sigma(Uncorrected(), tracks), "norm").pvalue > 1e-3
    again = simulate_tracks(PidConfig(n_tracks=20_000, distorted=False))
    np.testing.assert_array_equal(tracks.signal, again.signal)
    distorted = simulate_tracks(PidConfig(n_tracks=20_000))
    mean, width = distortion(distorted)
    exact = (distorted.ratio - mean) / (width * expected_width(distorted))
    assert kstest(exact, "norm").pvalue > 1e-3
    assert kstest(n_sigma(Uncorrected(), distorted), "norm").pvalue < 1e-6


def test_tracks_have_what_their_kind_says():
    tracks = simulate_tracks(PidConfig(n_tracks=5000, shares=(0.0, 0.5, 0.0, 0.5)))
    assert set(tracks.species) == {1, 3}
    pt = tracks.momentum / np.sqrt(1.0 + tracks.tan_lambda**2)
    np.testing.assert_allclose(np.abs(tracks.signed_inverse_pt), 1.0 / pt)
    as_kaon = tracks.taken_for("kaon")
    assert (as_kaon.mass == MASS["kaon"]).all()
    np.testing.assert_array_equal(as_kaon.momentum, tracks.momentum)
    assert (as_kaon.ratio != tracks.ratio).all()


def columns_of(tracks, names):
    values = {**dict(zip(COLUMNS, tracks.columns.T, strict=True)), "signal": tracks.signal}
    return {names.get(name, name): value for name, value in values.items()}


@pytest.mark.parametrize("names", [{}, {**COLUMNS, "signal": SIGNAL}])
@pytest.mark.parametrize("kind", ["root", "parquet"])
def test_a_table_comes_back(kind, names, tmp_path):
    tracks, path = simulate_tracks(PidConfig(n_tracks=100)), tmp_path / f"tracks.{kind}"
    columns = columns_of(tracks, names)
    if kind == "root":
        with uproot.recreate(path) as file:
            file["V0s"] = columns
    else:
        pyarrow = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(pyarrow.table(columns), path)
    read = read_tracks(path)
    np.testing.assert_array_equal(read.columns, tracks.columns)
    np.testing.assert_array_equal(read.signal, tracks.signal)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"fMass": None}, r"t.root: no column 'mass' or 'fMass'; it has fTPCInnerParam"),
        ({"fTgl": np.array([0.0, np.nan])}, r"t.root: fTgl, row 1: expected one finite number"),
        ({"fMass": np.array([0.1, 0.0])}, r"t.root: mass, row 1: 0.0, expected above 0"),
    ],
)
def test_a_bad_table_is_refused(change, told, tmp_path):
    names = {**COLUMNS, "signal": SIGNAL}
    columns = columns_of(simulate_tracks(PidConfig(n_tracks=2)), names) | change
    with uproot.recreate(tmp_path / "t.root") as file:
        file["V0s"] = {name: values for name, values in columns.items() if values is not None}
    with pytest.raises(BadFileError, match=told):
        read_tracks(tmp_path / "t.root")
    with pytest.raises(BadFileError, match=r"none\.root"):
        read_tracks(tmp_path / "none.root")


@pytest.mark.parametrize("options", [{"n_tracks": 0}, {"shares": (1.0, 1.0, 0.0, 0.0)}])
def test_settings_that_make_no_sense_are_refused(options):
    with pytest.raises(ConfigError, match="PidConfig"):
        PidConfig(**options)
