"""The file of tables gives back the same tables, agrees with correctionlib's own evaluator, and a
broken one is named.
"""

from __future__ import annotations

import dataclasses
import json

import correctionlib
import correctionlib.schemav2
import numpy as np
import pytest
from factories import make_sample

from pfcalib.calibration.lcw import LcwConfig, LcwTables, fit_lcw
from pfcalib.calibration.lcw_tables import KINDS, SAMPLINGS
from pfcalib.calibration.likelihood import LikelihoodConfig
from pfcalib.columns import LAYER_NAMES
from pfcalib.errors import BadFileError

SMALL = LcwConfig(
    likelihood=LikelihoodConfig(n_eta=2, n_energy=3, n_density=4, n_lambda=5),
    n_energy=3,
    n_density=4,
    n_cluster_eta=2,
    n_lambda=3,
)


@pytest.fixture
def sample(rng):
    sample = make_sample(rng, 300)
    extra = {
        name: rng.exponential(0.3, 300) * sample["clusterE"]
        for name in ("cluster_ENG_CALIB_OUT_T", "cluster_ENG_CALIB_DEAD_TOT")
    }
    depth = np.where(sample.is_em, 100.0, 900.0) * rng.uniform(0.5, 1.5, 300)
    return dataclasses.replace(
        sample, scalars={**sample.scalars, **extra, "cluster_CENTER_LAMBDA": depth}
    )


@pytest.fixture
def tables(rng, sample):
    """Derived ones with noise on them, so that every bin is another one."""
    fitted = fit_lcw([sample], SMALL, provenance={"sample": "toy"})
    noisy = {
        name: getattr(fitted, name) + rng.normal(0.0, 0.05, getattr(fitted, name).shape)
        for name in ("weights", "ooc", "dm")
    }
    return dataclasses.replace(fitted, **noisy)


def test_a_file_gives_back_the_same_tables(tables, sample, tmp_path):
    tables.save(tmp_path / "new" / "lcw.json")
    again = LcwTables.load(tmp_path / "new" / "lcw.json")
    for name in ("weights", "ooc", "dm"):
        np.testing.assert_array_equal(getattr(again, name), getattr(tables, name))
    assert again.config == tables.config
    assert again.provenance["sample"] == "toy"
    for a, b in zip(again.apply(sample), tables.apply(sample), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_file_is_a_correction_set_with_described_inputs(tables, tmp_path):
    tables.save(tmp_path / "lcw.json")
    stored = correctionlib.schemav2.CorrectionSet.model_validate_json(
        (tmp_path / "lcw.json").read_text()
    )
    assert len(stored.corrections) == 1 + 2 * len(LAYER_NAMES) + 4
    assert all(
        c.description and c.version == 1 and all(i.description for i in c.inputs)
        for c in stored.corrections
    )
    assert "1603.02934" in stored.description


def test_correctionlib_gives_the_same_energies(tables, sample, tmp_path):
    """The whole chain, evaluated cell by cell with correctionlib, whose reader of JSON rounds the
    last bit of a number.
    """
    tables.save(tmp_path / "lcw.json")
    book = correctionlib.CorrectionSet.from_file(str(tmp_path / "lcw.json"))
    column = {name: sample[name].astype(np.float64) for name in sample.scalars}
    eta, log_e = np.abs(column["clusterEta"]), np.log10(column["clusterE"] * 1e3)
    log_lambda = np.log10(column["cluster_CENTER_LAMBDA"])
    p = book["p_em"].evaluate(
        eta, log_e, np.log10(column["cluster_FIRST_ENG_DENS"] * 1e3) - log_e, log_lambda
    )
    owner = np.repeat(np.arange(len(sample)), np.diff(sample.offsets))
    row, energy = (
        sample.geo.rows(sample.cells["cluster_cell_ID"]),
        sample.cells["cluster_cell_E"].astype(np.float64),
    )
    density = np.log10(np.abs(energy) * 1e3 / sample.geo.volume[row].astype(np.float64))
    place = (np.abs(sample.geo.eta[row].astype(np.float64)), log_e[owner], density)
    weight = np.ones((2, len(row)))
    for kind, name in enumerate(KINDS):
        for sampling, layer in zip(SAMPLINGS, LAYER_NAMES, strict=True):
            here = (sample.geo.sampling[row] == sampling) & (
                np.abs(energy) > 2.0 * sample.geo.sigma[row].astype(np.float64)
            )
            weight[kind, here] = book[f"weight_{name}_{layer}"].evaluate(*(x[here] for x in place))
    mixed = p[owner] * weight[0] + (1.0 - p[owner]) * weight[1]
    e_cells = np.bincount(owner, weights=mixed * energy)
    e_ooc, at = e_cells, (eta, log_e, log_lambda)
    for share, name in ((p, "neutral"), (1.0 - p, "charged")):
        factor = 1.0 + share * column["cluster_ISOLATION"] * column["clusterE"] / e_ooc * book[
            f"ooc_{name}"
        ].evaluate(*at)
        e_ooc = e_ooc * np.where((factor >= 0.3) & (factor <= 3.0), factor, 1.0)
    factor = (
        1.0 + p * book["dm_neutral"].evaluate(*at) + (1.0 - p) * book["dm_charged"].evaluate(*at)
    )
    e_full = e_ooc * np.where((factor >= 0.3) & (factor <= 3.0), factor, 1.0)
    ours = tables.apply(sample)
    for found, expected in zip(ours, (p, e_cells, e_ooc, e_full), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def _damage(text, what):
    stored = json.loads(text)
    data = stored["corrections"][3]["data"]
    if what == "version":
        stored["corrections"][3]["version"] = 2
    elif what == "missing":
        del stored["corrections"][3]
    elif what == "short":
        data["content"].pop()
    elif what == "probability":
        stored["corrections"][0]["data"]["content"][0] = 1.5
    elif what == "flow":
        data["flow"] = "error"
    elif what == "nan":
        data["content"][0] = float("nan")
    elif what == "edges":
        data["edges"][0] = data["edges"][0][::-1]
    elif what == "moved":
        data["edges"][0][1] += 0.01
    elif what == "schema":
        stored["schema_version"] = 1
    elif what == "config":
        stored["description"] = (
            stored["description"]
            .replace("ratio_of_sums", "guess")
            .replace("mean_of_ratios", "guess")
        )
    elif what == "list":
        stored = [stored]
    return text[:1000] if what == "cut" else json.dumps(stored)


@pytest.mark.parametrize(
    "what",
    [
        *("version", "missing", "short", "probability", "flow", "nan", "edges", "moved"),
        *("schema", "config", "list", "cut"),
    ],
)
def test_a_broken_file_is_named(tables, tmp_path, what):
    path = tmp_path / "lcw.json"
    tables.save(path)
    path.write_text(_damage(path.read_text(), what))
    with pytest.raises(BadFileError, match=r"lcw\.json: "):
        LcwTables.load(path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(BadFileError, match=r"nowhere\.json"):
        LcwTables.load(tmp_path / "nowhere.json")
