"""Archives for HEPData hold what results.csv holds, and its validator takes them."""

from __future__ import annotations

import csv
import tarfile
from pathlib import Path

import pytest
import yaml

from pfcalib.reporting.hepdata import write_hepdata
from pfcalib.reporting.results import Report

validator = pytest.importorskip("hepdata_validator.full_submission_validator")


def read(archive: Path) -> dict[str, dict]:
    """The tables of an archive by name."""
    with tarfile.open(archive) as tar:
        texts = {name: tar.extractfile(name).read() for name in tar.getnames()}  # type: ignore[union-attr]
    documents = yaml.safe_load_all(texts["submission.yaml"])
    return {
        document["name"]: {**document, **yaml.safe_load(texts[document["data_file"]])}
        for document in documents
        if "name" in document
    }


def test_a_quantity_becomes_a_table_and_numbers_without_keys_share_one(tmp_path):
    report = Report("01_tiny", tmp_path, {"profile": "smoke"}, 1)
    report.metric("auc", 0.5, 0.01, "", "area")
    report.metric("speed", 3, None, "1/s", "clusters a second")
    table = [{"species": "pic", "energy": e, "value": e / 8, "error": 0.1} for e in (1, 10)]
    report.rows("iqr", table, unit="GeV", definition="width")
    report.row("iqr", model="lcw", value=None)
    report.finish()
    write_hepdata(tmp_path / "results.csv", "A study.", tmp_path / "hepdata.tar.gz")
    tables = read(tmp_path / "hepdata.tar.gz")
    assert set(tables) == {"single numbers", "iqr"}
    iqr, single = tables["iqr"], tables["single numbers"]
    assert iqr["description"] == "width"
    keys = {variable["header"]["name"]: variable for variable in iqr["independent_variables"]}
    assert keys["energy"]["header"]["units"] == "GeV"
    assert [value["value"] for value in keys["energy"]["values"]] == [1, 10]
    (measured,) = iqr["dependent_variables"]
    assert measured["header"] == {"name": "iqr", "units": "GeV"}
    assert [value["value"] for value in measured["values"]] == [0.125, 1.25]
    assert measured["values"][0]["errors"][0]["symerror"] == 0.1
    (values,) = single["dependent_variables"]
    assert "errors" not in values["values"][1]


# the validator leaves files open
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", ["03_classification", "37_inside_networks"])
def test_the_archive_of_a_published_study_is_complete_and_valid(name, root, tmp_path):
    numbers = root / "reports" / name / "results.csv"
    write_hepdata(numbers, "A study.", tmp_path / "hepdata.tar.gz")
    checked = validator.FullSubmissionValidator()
    assert checked.validate(archive=str(tmp_path / "hepdata.tar.gz")), checked.get_messages()
    with numbers.open() as file:
        n_numbers = sum(bool(row["value"]) for row in csv.DictReader(file))
    tables = read(tmp_path / "hepdata.tar.gz").values()
    assert n_numbers == sum(len(table["dependent_variables"][0]["values"]) for table in tables)
