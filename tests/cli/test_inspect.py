"""`inspect` takes lists, names MeV, and `convert` mends it; `example` lists and writes layouts."""

import pytest
from factories import in_mev, make_sample
from typer.testing import CliRunner

from pfcalib import cli
from pfcalib.errors import ConfigError, ValidationError
from pfcalib.samples.read import read_sample
from pfcalib.samples.write import write_sample


def run(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


@pytest.fixture
def sample(rng):
    return make_sample(rng, 40)


def test_a_list_of_files_is_inspected_file_by_file(sample, tmp_path):
    write_sample(tmp_path / "a.root", sample)
    write_sample(tmp_path / "b.root", sample[:20])
    (tmp_path / "list.txt").write_text("a.root\nb.root\n")
    result = run("inspect", f"@{tmp_path}/list.txt")
    assert result.exit_code == 0, result.exception
    assert result.output.count("all branches are there, all values are sane") == 2
    sample.scalars["clusterEta"][3] = 30.0
    write_sample(tmp_path / "b.root", sample)
    result = run("inspect", tmp_path / "a.root", tmp_path / "b.root")
    assert isinstance(result.exception, ValidationError)
    assert "b.root: 1 problems: clusterEta should lie within -6 and 6" in str(result.exception)
    assert "a.root" not in str(result.exception)


def test_a_page_is_of_one_file(sample, tmp_path):
    for name in ("a.root", "b.root"):
        write_sample(tmp_path / name, sample)
    result = run("inspect", tmp_path / "*.root", "--plot", tmp_path / "page.png")
    assert isinstance(result.exception, ConfigError)
    assert "is of one file, not of 2" in str(result.exception)


def test_a_file_in_mev_is_told_and_converted_if_asked_for(sample, tmp_path):
    write_sample(tmp_path / "mev.root", in_mev(sample))
    result = run("inspect", tmp_path / "mev.root")
    assert "are these in MeV" in str(result.exception)
    assert "energies in MeV?" in str(
        run("convert", tmp_path / "mev.root", tmp_path / "out.root").exception
    )
    result = run("convert", tmp_path / "mev.root", tmp_path / "out.root", "--unit", "mev")
    assert result.exit_code == 0, result.exception
    energy = read_sample(tmp_path / "out.root")["clusterE"]
    assert energy == pytest.approx(sample["clusterE"], rel=1e-5)


def test_examples_are_listed_written_and_replaced_if_forced(tmp_path):
    assert "edm4hep" in run("example").output
    path = tmp_path / "mine.root"
    assert run("example", "showers", "--out", path).exit_code == 0
    assert run("example", "showers", "--out", path, "--force").exit_code == 0
    assert run("inspect", path).exit_code == 0
