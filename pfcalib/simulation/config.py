"""The free numbers of the parametrised showers, tuned once on Geant4 showers and then frozen."""

from __future__ import annotations

from typing import NamedTuple


class ShowerConfig(NamedTuple):
    """Parameters of the shower kernels; a named tuple, because numba takes it as it is. Energies GeV, lengths mm."""

    # electromagnetic
    em_presampler: float = 5.44
    em_strips: float = 1.025
    em_lar: float = 1.054
    em_tile: float = 0.97
    sampling_lar: float = 0.069
    sampling_tile: float = 0.20
    spots_per_gev: float = 40.0
    spots_min: float = 4.0
    spots_max: float = 1600.0  # in one event; above, spots carry more energy each
    y_min: float = 3.5
    e_pair: float = 0.03  # a photon below showers as one electron, not as a pair
    t_shift: float = 0.0
    t_min: float = 0.5
    a_scale: float = 1.026
    a_min: float = 1.3
    s_scale: float = 1.0
    s_max: float = 0.6
    core_scale: float = 1.0
    tail_scale: float = 0.82
    albedo: float = 0.0013  # GeV in the presampler from a 1 GeV shower that starts in the strips
    albedo_radius: float = 60.0
    # hadronic
    lambda_scale: float = 0.648  # pion interaction length over the nominal one
    p_elastic: float = 0.308  # share of quasi-elastic among the interactions
    p_elastic_low: float = 0.25  # more of them below 1 GeV
    pt_elastic: float = 0.197
    nuclear_scale: float = 0.409  # mean energy of a nuclear break-up
    nuclear_slope: float = 0.546  # its growth with ln(1 + E)
    nuclear_power: float = 0.601  # its growth with the mean Z of the material
    nuclear_shape: float = 2.18  # shape of its gamma distribution
    stick: float = 2.19  # mean 1 / (1 + stick) of what is left goes to the next secondary
    leading: float = 1.5  # the same for the leading one
    p_pi0: float = 0.396  # share of neutral pions among the secondaries
    pi0_rise: float = 0.301  # energy of an interaction from which neutral pions are made freely
    p_exchange: float = 0.208  # leading pion turns neutral
    p_nucleon: float = 0.168  # share of fast nucleons among the secondaries
    pt_mean: float = 0.45
    binding: float = 0.268  # share of a break-up that goes into binding
    t_nucleon: float = 0.0613  # mean kinetic energy of an ejected nucleon
    f_proton: float = 0.404  # share of protons among them
    proton_lar: float = 1.24  # EM-scale signal per energy of a stopping proton
    proton_tile: float = 0.478
    neutron_lar: float = 1.38  # the same of a slow neutron
    neutron_tile: float = 3.04
    proton_shape: float = 1.02  # gamma shape of the signal of one stopping proton, and of a slow neutron
    neutron_shape: float = 0.587
    neutron_path: float = 444.0  # mean distance at which slow neutrons give up their energy
    mip_scale: float = 1.05
    f_gamma: float = 0.066  # share of a break-up in nuclear photons
