"""Geant4's data sets: the user's own when they are complete, tables from formulas when none are
named, an error in between.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pfcalib.errors import ConfigError
from pfcalib.simulation.geant4.data import (
    FOLDER,
    NEEDED,
    DataSets,
    configured_folders,
    find_data,
    parse_version,
)
from pfcalib.simulation.geant4.tables import MARK


@pytest.fixture(scope="module")
def synthetic(cache):
    return find_data()


@pytest.fixture
def own(synthetic, tmp_path):
    """A folder laid out as Geant4's data sets, versions in the names, of which Geant4 could not
    tell that we made it.
    """
    folder = tmp_path / "own"
    for (start, _), version in zip(NEEDED.values(), ("8.8", "4.2", "6.1.2", "3.0"), strict=True):
        shutil.copytree(Path(synthetic.environment[FOLDER]) / start, folder / f"{start}{version}")
    return folder


def test_without_data_sets_tables_are_written_into_the_cache(synthetic, cache):
    assert synthetic.synthetic
    assert synthetic.label == "Geant4 11.4.1, synthetic tables"
    assert Path(synthetic.environment[FOLDER]).parent == cache
    assert (Path(synthetic.environment[FOLDER]) / MARK).is_file()
    assert set(synthetic.environment) == {FOLDER, *NEEDED}
    assert all(Path(folder).is_dir() for folder in synthetic.environment.values())


def test_tables_are_written_once(synthetic):
    mark = Path(synthetic.environment[FOLDER]) / MARK
    before = mark.stat().st_mtime_ns
    assert find_data() == synthetic
    assert mark.stat().st_mtime_ns == before


def test_two_processes_may_write_the_tables_at_once(tmp_path):
    code = (
        "from pfcalib.simulation.geant4.data import find_data; "
        "print(find_data().environment['G4LEDATA'])"
    )
    environment = {**os.environ, "PFCALIB_CACHE": str(tmp_path / "new")}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    answers = {process.communicate()[0] for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert len(answers) == 1
    left = [path for path in (tmp_path / "new").iterdir() if path.suffix != ".lock"]
    assert len(left) == 1  # nothing temporary


def test_own_data_sets_are_used_and_told(own):
    data = find_data({FOLDER: str(own)})
    assert not data.synthetic
    assert data.label == "Geant4 11.4.1"
    assert data.environment["G4LEDATA"] == str(own / "G4EMLOW8.8")


def test_the_latest_version_of_a_data_set_is_taken(own):
    shutil.copytree(own / "G4EMLOW8.8", own / "G4EMLOW8.10")
    assert configured_folders({FOLDER: str(own)})["G4LEDATA"].name == "G4EMLOW8.10"


def test_single_variables_win_over_the_folder(own, tmp_path):
    shutil.copytree(own / "G4EMLOW8.8", tmp_path / "mine")
    assert (
        configured_folders({FOLDER: str(own), "G4LEDATA": str(tmp_path / "mine")})["G4LEDATA"]
        == tmp_path / "mine"
    )


def test_tables_that_are_named_as_data_sets_are_still_synthetic(synthetic):
    assert find_data({FOLDER: synthetic.environment[FOLDER]}) == synthetic


def test_data_sets_named_in_part_are_refused(own):
    with pytest.raises(ConfigError, match=r"in part: G4LEDATA but not G4PARTICLEXSDATA"):
        configured_folders({"G4LEDATA": str(own / "G4EMLOW8.8")})


def test_a_missing_data_set_is_named(own):
    shutil.rmtree(own / "G4PARTICLEXS4.2")
    with pytest.raises(ConfigError, match=r"has no folder G4PARTICLEXS\*"):
        configured_folders({FOLDER: str(own)})


def test_a_missing_file_is_named(own):
    (own / "G4EMLOW8.8" / "brem_SB" / "br82").unlink()
    with pytest.raises(ConfigError, match=r"G4LEDATA=.*has no file brem_SB/br82"):
        configured_folders({FOLDER: str(own)})


def test_a_folder_that_is_none_is_named(own, tmp_path):
    with pytest.raises(ConfigError, match=r"G4ENSDFSTATEDATA=.*nowhere is no folder"):
        configured_folders({FOLDER: str(own), "G4ENSDFSTATEDATA": str(tmp_path / "nowhere")})


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="set PFCALIB_CACHE"):
        find_data({"PFCALIB_CACHE": str(tmp_path / "file")})


def test_a_missing_extra_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'pfcalib\[geant4\]'"):
        find_data()


def test_data_sets_are_exported_before_the_library_is_there(monkeypatch):
    monkeypatch.setenv(FOLDER, "old")
    data = DataSets({FOLDER: "new"}, True, "")
    monkeypatch.setitem(sys.modules, "geant4_pybind", object())
    with pytest.raises(ConfigError, match="was imported before GEANT4_DATA_DIR"):
        data.export()
    monkeypatch.delitem(sys.modules, "geant4_pybind")
    data.export()
    assert os.environ[FOLDER] == "new"


def test_an_unknown_version_is_refused():
    with pytest.raises(ConfigError, match="calls itself 'ROOT'"):
        parse_version("ROOT")
