"""What a study of particle flow stands on at some pile-up: events, tables of E/p and of local cell
weighting from pions with the same noise, and networks of shares; each made on first use.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pfcalib.cache import cache_key, locked
from pfcalib.calibration.eoverp import EoverPConfig, EoverPTable, derive_eoverp
from pfcalib.calibration.lcw import cached_lcw
from pfcalib.calibration.rings import ring_cells
from pfcalib.models.cell_shares import SharesConfig
from pfcalib.particleflow.deposit import table_deposit
from pfcalib.particleflow.event import Event, MatchedSets
from pfcalib.particleflow.files import iterate_events, read_cells
from pfcalib.particleflow.match import FlowConfig, matching
from pfcalib.samples.rootfile import content_id
from pfcalib.simulation.collisions import CollisionConfig
from pfcalib.simulation.crossings import EventsConfig, cached_events
from pfcalib.simulation.produce import ProduceConfig, cached_sample
from pfcalib.training.fit import Say
from pfcalib.training.shares import SharesTraining, fit_shares

# GeV, of the pions that E/p, and that local cell weighting, is taken from
E_TRACKS, E_CLUSTERS = (0.6, 80.0), (0.2, 500.0)
_TRAIN_SEED = 1000  # added to the seeds: networks are trained on other events and other pile-up


class Tables(NamedTuple):
    """Files of tables for one pile-up."""

    eoverp: Path
    lcw: Path


@dataclasses.dataclass(frozen=True, kw_only=True)
class SubtractionConfig:
    """Samples of a study of particle flow.

    Parameters
    ----------
    seed : int
    pt_hat : tuple of float, GeV
        Edges of the slices of dijets.
    n_train : int
        Dijets that a network is trained on at each pile-up.
    n_pions : int
        Pions for each table at each pile-up.
    p_edges : tuple of float, GeV
        Bins of momentum of the tables of E/p.
    n_pool : int
        Minimum-bias events that pile-up is drawn from.
    n_processes : int
    epochs, width, max_sets : int
        Of networks of shares, see `models.cell_shares` and `training.shares`.
    cone : float
        dR of the cells that they see, likewise.
    """

    seed: int = 1
    pt_hat: tuple[float, ...] = (12.0, 20.0, 32.0, 50.0, 80.0, 130.0, 220.0, 500.0)
    n_train: int = 3000
    n_pions: int = 60_000
    p_edges: tuple[float, ...] = EoverPConfig().energy_edges
    n_pool: int = 5000
    n_processes: int = 1
    epochs: int = 20
    width: int = 32
    max_sets: int = 150_000
    cone: float = 0.2

    def events(
        self, mu: float, n_events: int, *, process: str = "dijets", train: bool = False
    ) -> EventsConfig:
        """Events at a mean number of interactions a crossing, for training or to look at."""
        collisions = CollisionConfig(process=process, pt_hat=self.pt_hat)
        seed = self.seed + _TRAIN_SEED * train
        return EventsConfig(
            collisions=collisions, n_events=n_events, mu=float(mu), n_pool=self.n_pool,
            pool_seed=seed, seed=seed, n_processes=self.n_processes,
        )  # fmt: skip

    def pions(self, mu: float, particles: Sequence[str], e_min: float, e_max: float) -> Path:
        """Single pions with the noise of a pile-up."""
        return cached_sample(
            ProduceConfig(
                n_events=self.n_pions, particles=tuple(particles), e_min=e_min, e_max=e_max,
                noise="pileup", mu=float(mu), seed=self.seed, n_processes=self.n_processes,
            )
        )  # fmt: skip

    def training(self, form: str) -> SharesTraining:
        """A network of shares that sees points or images."""
        default = SharesTraining(network=SharesConfig(form=form, width=self.width))
        train = dataclasses.replace(default.train, epochs=self.epochs, seed=self.seed)
        return dataclasses.replace(default, train=train, max_sets=self.max_sets, cone=self.cone)


def cached_tables(config: SubtractionConfig, mu: float) -> Tables:
    """Tables of E/p and of local cell weighting from pions with the noise of a pile-up, so that
    both calibrations know the thresholds of the clusters.
    """
    tracks = config.pions(mu, ("pi+", "pi-"), *E_TRACKS)
    bins = EoverPConfig(energy_edges=config.p_edges)
    key = cache_key("eoverp", sample=content_id(tracks), config=bins)
    target = tracks.parent / "calibrations" / f"eoverp-{tracks.stem}-{key}.json"
    with locked(target):
        if not target.exists():
            derive_eoverp(tracks, bins).save(target)
    clusters = config.pions(mu, ("pi0", "pi0", "pi+", "pi-"), *E_CLUSTERS)
    return Tables(target, cached_lcw(clusters, split="all"))


def cached_shares(
    config: SubtractionConfig,
    mus: Sequence[float],
    form: str,
    *,
    progress: Callable[[int], None] | None = None,
    say: Say = print,
) -> Path:
    """Network of shares trained on dijets at some pile-up, or at several together; returns the path
    of the ONNX file.

    What tracks are expected to leave is told by the table of E/p of the same pile-up.
    """
    paths = {
        mu: cached_events(config.events(mu, config.n_train, train=True), progress=progress)
        for mu in mus
    }
    tables = {mu: cached_tables(config, mu).eoverp for mu in mus}
    cells = ring_cells(read_cells(paths[mus[0]]))

    def sets() -> Iterator[tuple[Event, MatchedSets]]:
        for mu in mus:
            deposit = table_deposit(EoverPTable.load(tables[mu]))
            find = matching(deposit, FlowConfig(), cone=config.cone)
            for event in iterate_events(paths[mu]):
                yield event, find(event, cells).sets

    names = [(content_id(paths[mu]), tables[mu].stem) for mu in mus]
    inputs = cache_key("particleflow", files=names)
    return fit_shares(sets(), cells, config.training(form), inputs=inputs, say=say)
