"""A trained model applied to a sample: a friend tree with the same entries, of energies and
probabilities.

    import uproot
    with uproot.open("calibrated.root") as file:
        e_pred = file["calibration/e_pred"].array()     # GeV, one for each cluster of the sample
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import uproot
from numpy.typing import NDArray

from pfcalib.cache import file_sha256, new_file
from pfcalib.calibration.inversion import Inversion
from pfcalib.calibration.lcw_tables import CELLS_READ, SCALARS_READ, LcwTables
from pfcalib.deploy.contract import ModelContract, read_contract
from pfcalib.deploy.export import predict
from pfcalib.deploy.validator import open_session, run_in_batches
from pfcalib.errors import BadFileError, ConfigError, ValidationError
from pfcalib.features.images import build_images
from pfcalib.features.inputs import WITH_SIGNIFICANCE, build_inputs, input_layers
from pfcalib.features.points import build_points
from pfcalib.features.scalars import MOMENT_COLUMNS
from pfcalib.features.targets import TargetConfig
from pfcalib.models.families import load_model
from pfcalib.models.heads import HEADS
from pfcalib.samples.layouts.recognise import open_reader
from pfcalib.samples.read import PathLike, as_paths, iterate_sample
from pfcalib.samples.schema import METADATA, Sample
from pfcalib.training.networks import SCALARS, Paths, output_energy
from pfcalib.training.stream import scaled

TREE = "calibration"
STEP = 5000  # clusters in memory at once
BATCH = 1000  # clusters a call of the network
FOLDER = Path(__file__).parents[1] / "data" / "models"
_IMAGE_COLUMNS = ("clusterE", "clusterEta", "clusterPhi", "cluster_cell_ID", "cluster_cell_E")
MEANINGS = {
    "sample": "place of the file among those that were given",
    "event": "number of the event in its file, -1 where it has none",
    "cluster": "number of the cluster in its file",
    "p_em": "probability of a neutral pion",
    "e_pred": "calibrated energy, GeV",
    "e_lcw": "energy after local cell weighting, GeV",
}
Answers = dict[str, NDArray[np.float64]]  # by name of the column, each (n_clusters,)


class Model(NamedTuple):
    """Something that calibrates or classifies clusters."""

    path: Path
    reads: tuple[str, ...]  # columns of the clusters
    gives: tuple[str, ...]  # columns of its answers, of MEANINGS
    made_by: str  # a command; empty where the contract tells none
    answer: Callable[[Sample], Answers]  # not finite where a cluster has no energy


def packaged_models() -> tuple[str, ...]:
    """Names of the trained networks that come with the package."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.onnx")))


def open_model(name: PathLike) -> Model:
    """A model by the name of a packaged one, its folder, or its file.

    Parameters
    ----------
    name : path-like
        Of `packaged_models`; a folder of `pfcalib train`; an .onnx or a .keras file with the
        contract beside it; or a .json file with tables of local cell weighting.

    Raises
    ------
    BadFileError, ValidationError
        If there is no such model, or its contract does not fit.
    """
    path = FOLDER / f"{name}.onnx" if str(name) in packaged_models() else Path(name)
    if path.suffix == ".json":
        return _lcw_model(path)
    folder = path if path.is_dir() else path.parent
    exported = [path] if path.suffix == ".onnx" else sorted(folder.glob("*.onnx"))
    if not path.exists() or len(exported) != 1:
        raise BadFileError(
            f"{name}: expected a folder with one .onnx file, an .onnx, .keras or .json file, or "
            f"one of {', '.join(packaged_models())}"
        )
    contract = read_contract(exported[0])
    if path.suffix == ".keras":
        keras_model = load_model(path)
        return _network_model(path, contract, lambda inputs: predict(keras_model, inputs))
    if file_sha256(exported[0]) != contract.sha256:
        raise ValidationError(f"{exported[0]}: sha256 differs from that of its contract")
    session = open_session(exported[0])
    return _network_model(
        exported[0], contract, lambda inputs: run_in_batches(session, inputs, BATCH)
    )


def _network_model(
    path: Path,
    contract: ModelContract,
    run: Callable[[dict[str, NDArray[np.float32]]], NDArray[np.float32]],
) -> Model:
    """A network with the inputs, target and inversion of its contract."""
    head = next((name for name, (out, _) in HEADS.items() if out == contract.output.name), "")
    options, inversion = (contract.training.get(name) for name in ("target", "inversion"))
    if not head or (head != "classes" and not options):
        raise ValidationError(
            f"{path}: the contract does not tell what its output {contract.output.name!r} means"
        )
    target = TargetConfig(**options) if options else None
    names = {spec.name for spec in contract.inputs}

    def answer(sample: Sample) -> Answers:
        inputs = _cell_inputs(sample, contract.kind)
        if "scalars" in names:
            columns = [scaled(name, sample[name]) for name in SCALARS]
            inputs["scalars"] = np.column_stack(columns)
        if "moments" in names:
            moments = [sample[name].astype(np.float32) for name in MOMENT_COLUMNS]
            inputs["moments"] = np.column_stack(moments)
        output, found = run(inputs), {}
        if "class" in head:
            found["p_em"] = output[:, 1].astype(np.float64)
        if target:
            energy = output_energy(head, target, output, sample["clusterE"])
            if inversion:
                energy = Inversion(**{k: np.array(v) for k, v in inversion.items()}).apply(energy)
            found["e_pred"] = energy
        return found

    gives = (*(["p_em"] if "class" in head else []), *(["e_pred"] if target else []))
    reads = tuple(dict.fromkeys((*_IMAGE_COLUMNS, *(MOMENT_COLUMNS if "moments" in names else ()))))
    return Model(path, reads, gives, contract.training.get("made_by", ""), answer)


def _cell_inputs(sample: Sample, kind: str) -> dict[str, NDArray[np.float32]]:
    """Inputs that are made of cells; none for a network on moments."""
    layers = input_layers(kind)
    if not layers:
        return {"points": build_points(sample)} if kind == "points" else {}
    significance = (
        build_images(sample, layers=layers, normalise_by=None, significance=True)
        if kind == WITH_SIGNIFICANCE
        else None
    )
    return build_inputs(build_images(sample, layers=layers), kind, significance=significance)


def _lcw_model(path: Path) -> Model:
    """Tables of local cell weighting."""
    tables = LcwTables.load(path)

    def answer(sample: Sample) -> Answers:
        energies = tables.apply(sample)
        return {"p_em": energies.p_em, "e_lcw": energies.full}

    return Model(path, (*SCALARS_READ, *CELLS_READ), ("p_em", "e_lcw"), "", answer)


def write_friend(
    paths: Paths,
    model: Model,
    out: PathLike,
    *,
    force: bool = False,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Write the answers of a model as a tree with one entry for each cluster of a sample, in its
    order; at most `STEP` clusters are in memory.

    Parameters
    ----------
    paths : path-like or sequence of them
        Samples of any layout; several are one tree.
    model : Model
        Of `open_model`.
    out : path-like
        ROOT file with the tree ``calibration``; complete or not there.
    force : bool
        Replace a file that is there.
    progress : callable, optional
        Takes the number of clusters that are new.

    Returns
    -------
    int
        Clusters written. Those without a positive energy have NaN.

    Raises
    ------
    ConfigError
        If the file is there and shall not be replaced, or is the sample itself.
    """
    out, files, n_written = Path(out), as_paths(paths), 0
    same = any(Path(file).exists() and out.exists() and out.samefile(file) for file in files)
    if same or (out.exists() and not force):
        raise ConfigError(f"{out}: is there already; another name, or --force to replace it")
    kinds: dict[str, Any] = {"sample": np.int16, "event": np.int64, "cluster": np.int64}
    facts = {
        "model": model.path.name,
        "model_sha256": file_sha256(model.path),
        "samples": [str(file) for file in files],
        "columns": {name: MEANINGS[name] for name in (*kinds, *model.gives)},
    }
    with new_file(out) as temporary, uproot.recreate(temporary) as file:
        tree = file.mktree(
            TREE, {**kinds, **dict.fromkeys(model.gives, np.float32)}, title="one entry a cluster"
        )
        for place, sample_path in enumerate(files):
            with open_reader(sample_path) as reader:
                event = [n for n in ("eventNumber",) if n in reader.read(0, 0).scalars]
            first = 0
            columns = tuple(dict.fromkeys((*model.reads, *event)))
            for sample in iterate_sample(sample_path, step=STEP, columns=columns):
                n = len(sample)
                sound = np.isfinite(sample["clusterE"]) & (sample["clusterE"] > 0.0)
                answers = {name: np.full(n, np.nan) for name in model.gives}
                if sound.any():
                    for name, values in model.answer(sample[sound]).items():
                        answers[name][sound] = values
                tree.extend(
                    {
                        "sample": np.full(n, place, np.int16),
                        "event": np.asarray(
                            sample["eventNumber"] if event else np.full(n, -1), np.int64
                        ),
                        "cluster": np.arange(first, first + n),
                        **{name: values.astype(np.float32) for name, values in answers.items()},
                    }
                )
                first += n
                if progress is not None:
                    progress(n)
            n_written += first
        file[METADATA] = json.dumps(facts)
    return n_written
