"""Particle flow as slowly and as plainly as it can be written, to hold the kernels against."""

from __future__ import annotations

import math

from pfcalib.calibration.rings import N_RINGS, RING_WIDTHS

EMB2 = 2


def wrapped(d_phi):
    """Angle in -pi to pi."""
    return math.remainder(d_phi, 2.0 * math.pi)


def distance(cells, cell, tracks, track):
    """dR of a cell from a track at the layer of the cell."""
    layer = cells.layer[cell]
    d_phi = wrapped(cells.phi[cell] - tracks.phi_at[track, layer])
    return math.sqrt((cells.eta[cell] - tracks.eta_at[track, layer]) ** 2 + d_phi**2)


def sets_by_hand(event, cells, config, mean_of, sigma_of):
    """{track: list of entries} in the order of subtraction, and the status of each track."""
    tracks, clusters, status, sets = event.tracks, event.clusters, {}, {}
    order = sorted(
        range(len(tracks.pt)), key=lambda t: (-tracks.pt[t], tracks.eta[t], tracks.phi[t])
    )
    members = [
        list(range(clusters.offsets[c], clusters.offsets[c + 1]))
        for c in range(len(clusters.energy))
    ]
    for track in order:
        if not config.pt_min < tracks.pt[track] < config.pt_max:
            status[track] = "unselected"
            continue
        if not abs(tracks.eta[track]) < config.eta_max:
            status[track] = "unselected"
            continue
        eta, phi = tracks.eta_at[track, EMB2], tracks.phi_at[track, EMB2]
        candidates, around = [], 0.0
        for c, entries in enumerate(members):
            if (
                math.hypot(clusters.eta[c] - eta, wrapped(clusters.phi[c] - phi))
                < config.dense_radius
            ):
                around += clusters.energy[c]
            if clusters.energy[c] <= config.min_fraction * tracks.p[track]:
                continue
            n = len(entries)
            rows = [clusters.cell[k] for k in entries]
            s_eta = math.sqrt(sum((cells.eta[r] - clusters.eta[c]) ** 2 for r in rows) / n)
            s_phi = math.sqrt(sum(wrapped(cells.phi[r] - clusters.phi[c]) ** 2 for r in rows) / n)
            d_eta = (clusters.eta[c] - eta) / max(s_eta, config.min_width)
            d_phi = wrapped(clusters.phi[c] - phi) / max(s_phi, config.min_width)
            candidates.append((math.hypot(d_eta, d_phi), c))
        candidates = [pair for pair in candidates if pair[0] < config.max_distance]
        if not candidates:
            status[track] = "unmatched"
            continue
        best = min(candidates)[1]
        mean, sigma = mean_of(track), sigma_of(track)
        limit = config.dense_slope * (math.log10(40000.0) - math.log10(1000.0 * tracks.pt[track]))
        if (around - mean) / sigma > limit:
            status[track] = "dense"
            continue
        status[track], chosen = "subtracted", {best}
        if clusters.energy[best] < mean - config.split_sigma * sigma:
            for c in range(len(members)):
                d = math.hypot(clusters.eta[c] - eta, wrapped(clusters.phi[c] - phi))
                if d < config.split_radius:
                    chosen.add(c)
        sets[track] = [k for c in sorted(chosen) for k in members[c]]
    return sets, status


def cones_by_hand(event, cells, config, radius):
    """{track: entries of cells within the radius}, tracks in falling pT."""
    tracks, cell, sets = event.tracks, event.clusters.cell, {}
    for track in sorted(range(len(tracks.pt)), key=lambda t: -tracks.pt[t]):
        entries = [k for k in range(len(cell)) if distance(cells, cell[k], tracks, track) < radius]
        if config.pt_min < tracks.pt[track] < config.pt_max and entries:
            sets[track] = entries
    return sets


def subtract_by_hand(event, cells, sets, order_of, mean_of, sigma_of, whole_sigma):
    """{(track, entry): GeV} that each track takes, ring by ring."""
    left, taken = dict(enumerate(event.clusters.cell_energy.tolist())), {}
    for track, entries in sets.items():
        mean, cut = mean_of(track), whole_sigma * sigma_of(track)
        shares = dict.fromkeys(entries, 0.0)
        if sum(left[k] for k in entries) - mean < cut:
            shares = dict.fromkeys(entries, 1.0)
        else:
            rings, removed = {}, 0.0
            for k in entries:
                cell = event.clusters.cell[k]
                layer = cells.layer[cell]
                ring = int(distance(cells, cell, event.tracks, track) / RING_WIDTHS[layer])
                rings.setdefault((layer, min(ring, N_RINGS - 1)), []).append(k)
            for code in order_of(track):
                ring = rings.get(divmod(code, N_RINGS), [])
                energy = sum(left[k] for k in ring)
                if not ring:
                    continue
                if removed + energy > mean:
                    for k in ring:
                        shares[k] = (mean - removed) / energy
                    removed = mean
                    break
                for k in ring:
                    shares[k] = 1.0
                removed += energy
            if sum(left[k] for k in entries) - removed < cut:
                shares = dict.fromkeys(entries, 1.0)
        for k in entries:
            taken[track, k] = shares[k] * left[k]
            left[k] -= taken[track, k]
    return taken
