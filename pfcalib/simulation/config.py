"""The free numbers of the parametrised showers, tuned once on Geant4 showers and then frozen."""

from __future__ import annotations

from typing import NamedTuple


class ShowerConfig(NamedTuple):
    """Parameters of the shower kernels; a named tuple, because numba takes it as it is. Energies GeV, lengths mm."""

    # electromagnetic
    em_presampler: float = 5.44
    em_strips: float = 1.05
    em_lar: float = 1.05
    em_tile: float = 1.0
    sampling_lar: float = 0.072
    sampling_tile: float = 0.20
    spots_per_gev: float = 60.0
    spots_min: float = 4.0
    spots_max: float = 3000.0  # in one event; above, spots carry more energy each
    y_min: float = 3.5
    e_pair: float = 0.03  # a photon below showers as one electron, not as a pair
    t_shift: float = 0.0
    t_min: float = 0.5
    a_scale: float = 1.0
    a_min: float = 1.3
    s_scale: float = 1.0
    s_max: float = 0.6
    core_scale: float = 1.0
    tail_scale: float = 0.8
    albedo: float = 0.0021  # GeV in the presampler from a 1 GeV shower that starts in the strips
    albedo_radius: float = 42.0
    # hadronic
    lambda_scale: float = 0.75  # pion interaction length over the nominal one
    p_elastic: float = 0.3  # share of quasi-elastic among the interactions
    pt_elastic: float = 0.2
    nuclear_scale: float = 0.35  # mean energy of a nuclear break-up
    nuclear_slope: float = 0.5  # its growth with ln(1 + E)
    nuclear_power: float = 0.4  # its growth with the mean Z of the material
    nuclear_shape: float = 2.0  # shape of its gamma distribution
    stick: float = 2.0  # mean 1 / (1 + stick) of what is left goes to the next secondary
    leading: float = 1.5  # the same for the leading one
    p_pi0: float = 0.36  # share of neutral pions among the secondaries
    pi0_rise: float = 0.3  # energy of an interaction from which neutral pions are made freely
    p_exchange: float = 0.2  # leading pion turns neutral
    p_nucleon: float = 0.15  # share of fast nucleons among the secondaries
    pt_mean: float = 0.42
    binding: float = 0.25  # share of a break-up that goes into binding
    t_nucleon: float = 0.06  # mean kinetic energy of an ejected nucleon
    f_proton: float = 0.45  # share of protons among them
    proton_lar: float = 1.0  # EM-scale signal per energy of a stopping proton
    proton_tile: float = 0.9
    neutron_lar: float = 0.10  # the same of a slow neutron
    neutron_tile: float = 0.35
    proton_shape: float = 1.0  # gamma shape of the signal of one stopping proton, and of a slow neutron
    neutron_shape: float = 0.6
    neutron_path: float = 130.0  # mean distance at which slow neutrons give up their energy
    mip_scale: float = 1.0
    f_gamma: float = 0.06  # share of a break-up in nuclear photons
