"""What a trained model is worth on labelled clusters, by the file that will be used."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pfcalib.cache import write_text
from pfcalib.deploy.contract import contract_path, read_contract, seal
from pfcalib.deploy.examination import FAILED, OPEN, PASSED, Finding
from pfcalib.errors import BadFileError
from pfcalib.features.targets import TargetConfig
from pfcalib.metrics.bootstrap import bootstrap
from pfcalib.metrics.curve import Estimate
from pfcalib.metrics.response import resolution, species_masks
from pfcalib.metrics.roc import auc
from pfcalib.samples.read import as_paths, iterate_sample
from pfcalib.samples.schema import is_em
from pfcalib.samples.split import split_index, split_of
from pfcalib.training.friend import STEP, open_model
from pfcalib.training.networks import SELECTION, Paths

TRUTH = ("truthE", "truthPdgId", "cluster_ENG_CALIB_TOT", "eventNumber", "clusterE", "clusterEta")
N_SPECIES = 20  # clusters of a species that tell a median
N_SIGMA = 3.0  # within which two measurements agree


def judge_model(
    path: str | Path, samples: Paths, *, split: str | None = None
) -> dict[str, Estimate]:
    """Area under the ROC curve of a classifier, median and resolution of the response of a
    regression for neutral and charged pions, of the clusters that studies select.

    Parameters
    ----------
    path : path
        Of an exported network.
    samples : path-like or sequence of them
        With truth.
    split : str, optional
        Of events; all clusters by default.

    Returns
    -------
    dict of str to Estimate
        ``auc``, ``median_pi0``, ``median_pic``, ``resolution_pi0``, ``resolution_pic``: those that
        the model gives and enough clusters tell.

    Raises
    ------
    BadFileError
        If no cluster is left, or one class only.
    """
    model, target = open_model(path), read_contract(Path(path)).training.get("target")
    parts: dict[str, list[Any]] = {"em": [], "true": [], **{name: [] for name in model.gives}}
    columns = tuple(dict.fromkeys((*model.reads, *TRUTH, "cluster_ENG_CALIB_OUT_T")))
    for file in as_paths(samples):
        for sample in iterate_sample(file, step=STEP, columns=columns):
            keep = SELECTION.mask(sample.scalars)
            if split is not None:
                keep &= split_of(sample["eventNumber"]) == split_index(split)
            if keep.any():
                chosen = sample[keep]
                parts["em"].append(is_em(chosen["truthPdgId"]))
                if target:
                    parts["true"].append(TargetConfig(**target).energy_true(chosen.scalars))
                for name, values in model.answer(chosen).items():
                    parts[name].append(values)
    em = np.concatenate(parts["em"] or [np.zeros(0, dtype=bool)])
    if not len(em) or ("p_em" in model.gives and em.all() == em.any()):
        raise BadFileError(f"{samples}: expected selected clusters of neutral and charged pions")
    found = {}
    if "p_em" in model.gives:
        found["auc"] = auc(np.concatenate(parts["p_em"]), em)
    if "e_pred" in model.gives:
        ratio = np.concatenate(parts["e_pred"]) / np.concatenate(parts["true"])
        rng = np.random.default_rng(1)
        for species, mask in species_masks(em).items():
            if np.sum(mask) >= N_SPECIES and species != "all":
                for name, statistic in (("median", _median), ("resolution", resolution)):
                    drawn = bootstrap(statistic, ratio[mask], rng=rng)
                    found[f"{name}_{species}"] = Estimate.resampled(statistic(ratio[mask]), drawn)
    return found


def _median(values: Any) -> Any:
    return np.median(values, axis=-1)


def write_physics(path: str | Path, measured: Mapping[str, Estimate]) -> None:
    """Write what was measured into the contract of a model, which is sealed anew."""
    contract = read_contract(Path(path))
    physics = {name: (float(of.value), float(of.error)) for name, of in measured.items()}
    sealed = seal(contract.model_copy(update={"physics": physics}))
    write_text(contract_path(Path(path)), sealed.model_dump_json(indent=2) + "\n")


def check_physics(path: str | Path, measured: Mapping[str, Estimate]) -> Finding:
    """Whether what was measured is what the contract tells, within the errors of both."""
    told = read_contract(Path(path)).physics
    text = ", ".join(f"{name} {of.value:.4f} +- {of.error:.4f}" for name, of in measured.items())
    wrong = [
        f"{name} of the contract is {told[name][0]:.4f} +- {told[name][1]:.4f}"
        for name, of in measured.items()
        if name in told and abs((of - Estimate(*told[name])).significance) > N_SIGMA
    ]
    if "auc" in measured and measured["auc"].value < 0.5:
        wrong.append("the classes are the wrong way round")
    if wrong:
        return Finding("physics", FAILED, "; ".join([text, *wrong]))
    if not told.keys() & measured.keys():
        return Finding("physics", OPEN, f"the contract tells nothing to compare with; {text}")
    return Finding("physics", PASSED, text)
