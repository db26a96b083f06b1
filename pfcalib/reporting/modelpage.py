"""A page of a model: what was checked of its file, and what was not."""

from __future__ import annotations

from pathlib import Path

from pfcalib.cache import write_text
from pfcalib.deploy.contract import read_contract, read_reference
from pfcalib.deploy.examination import FAILED, OPEN, PASSED, Examination
from pfcalib.deploy.latency import measure_latency
from pfcalib.deploy.validator import TOLERANCE
from pfcalib.errors import ValidationError
from pfcalib.reporting.results import template_environment

MARKS = {PASSED: "passed", FAILED: "failed", OPEN: "missed"}
BATCHES = (1, 256)  # of the latency


def write_model_page(page: Path, result: Examination) -> None:
    """Write one HTML file; the latency is measured if nothing failed."""
    contract, latencies = None, []
    try:
        contract = read_contract(result.path)
        if result.passed:
            inputs = read_reference(result.path, contract).inputs
            n = len(next(iter(inputs.values())))
            latencies = [
                measure_latency(result.path, inputs, batch=batch, n_calls=100)
                for batch in BATCHES
                if batch <= n
            ]
    except ValidationError:
        pass  # it is among the findings
    template = template_environment().get_template("model.html.j2")
    text = template.render(
        result=result, contract=contract, latencies=latencies, marks=MARKS, tolerance=TOLERANCE
    )
    write_text(page, text)
