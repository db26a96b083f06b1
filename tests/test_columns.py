"""Every quantity is described once, and its label can be drawn."""

import matplotlib.mathtext
import numpy as np
import pytest

from pfcalib.columns import (
    ALL,
    CELL_GEO,
    COLUMNS,
    EXTRA,
    JAGGED,
    LAYER_NAMES,
    MOMENTS,
    SCALARS,
    label,
)
from pfcalib.geometry import BARREL


def test_no_name_occurs_twice():
    assert (
        len(COLUMNS)
        == len(ALL)
        == len({*SCALARS, *EXTRA, *JAGGED})
        == len(SCALARS) + len(EXTRA) + len(JAGGED)
    )


def test_columns_say_what_they_mean():
    for column in ALL:
        assert column.meaning
        assert column.symbol
        assert column.numpy_dtype.itemsize <= 8


@pytest.mark.parametrize("column", ALL, ids=lambda column: column.name)
def test_labels_can_be_drawn(column):
    parsed = matplotlib.mathtext.MathTextParser("path").parse(label(column.name))
    assert parsed.width > 0


def test_a_label_is_symbol_and_unit():
    assert label("truthE") == r"$E_\mathrm{true}$ [GeV]"
    assert "[" not in label("cluster_nCells")


def test_names_of_the_public_ntuples_are_kept():
    """Branches of ClusterTree and MLTree in the public point-cloud samples."""
    public = {
        "truthE",
        "truthPdgId",
        "truthEta",
        "truthPhi",
        "clusterE",
        "clusterPt",
        "clusterEta",
        "clusterPhi",
        "cluster_nCells",
    }
    public |= {
        "cluster_ENG_CALIB_TOT",
        "cluster_ENG_CALIB_OUT_T",
        "cluster_ENG_CALIB_DEAD_TOT",
        "cluster_CENTER_MAG",
        "cluster_FIRST_ENG_DENS",
    }
    assert public <= set(SCALARS)
    assert {
        "cluster_cell_ID",
        "cluster_cell_E",
        "cluster_cell_hitsE_EM",
        "cluster_cell_hitsE_nonEM",
    } <= set(JAGGED)
    assert {
        "cell_geo_ID",
        "cell_geo_sampling",
        "cell_geo_eta",
        "cell_geo_phi",
        "cell_geo_volume",
    } <= set(CELL_GEO)


def test_moments_are_columns_and_every_layer_has_its_energy_and_width():
    assert set(MOMENTS) <= set(SCALARS)
    for name in LAYER_NAMES:
        assert {f"cluster_E_{name}", f"cluster_WIDTH_ETA_{name}"} <= set(MOMENTS)


def test_layers_have_one_order():
    assert tuple(layer.name for layer in BARREL.layers) == LAYER_NAMES


def test_identifiers_are_integers_wide_enough():
    assert np.iinfo(COLUMNS["cluster_cell_ID"].dtype).max > BARREL.n_cells
    assert COLUMNS["eventNumber"].dtype == "int64"
