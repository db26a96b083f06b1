"""The free numbers of the parametrised showers: fitted to Geant4 pions of 0.5-60 GeV, then
frozen.
"""

from __future__ import annotations

from typing import NamedTuple


class ShowerConfig(NamedTuple):
    """Parameters of the shower kernels; a named tuple, because numba takes it as it is. Energies
    GeV, lengths mm.

    Responses are EM-scale signal over deposited energy. The hadronic values are effective: what the
    cascade leaves out (say, knock-on protons of neutrons) is absorbed by the numbers that the fit
    found for what it has, so they are no constants of nature.
    """

    # electromagnetic showers
    em_presampler: float = 5.335  # response of the presampler, all argon
    em_strips: float = 1.012  # response of EMB1
    em_lar: float = 1.055  # response of EMB2 and EMB3
    em_tile: float = 0.97  # response of the tiles
    sampling_lar: float = 0.07644  # sampling term, sqrt(GeV)
    sampling_tile: float = 0.2
    spots_per_gev: float = 60.0
    spots_min: float = 4.0  # a shower, at full density
    # in one event; above, spots of the core are sparser and carry more energy each
    spots_max: float = 4000.0
    # GeV, a spot of more in the tail is split into several; grows as spots become sparser
    tail_quantum: float = 0.0025
    # a photon below showers as one electron, not as a pair; more in events of high energy
    e_pair: float = 0.1
    y_min: float = 3.5  # E/Ec below which the profile stays as it is
    t_shift: float = 0.0  # added to the mean depth of the maximum, X0
    t_min: float = 0.5  # smallest mean depth of the maximum, X0
    a_scale: float = 0.9654  # factor on the mean shape alpha
    a_min: float = 1.3  # smallest alpha
    s_scale: float = 1.095  # factor on the fluctuations of ln T and ln alpha
    s_max: float = 0.6  # largest of either
    # least fall-off of the late profile, 1/X0: what attenuates the most penetrating photons
    beta_min: float = 0.3231
    core_scale: float = 1.476  # factors on the radii of core, of core in the strips, and of tail
    core_strips: float = 0.6196
    tail_scale: float = 0.8524
    tail_more: float = 0.1162  # added share of the tail, as a share of the core
    # factor on the radii in the tiles of a shower that began in front of them
    gap_spread: float = 5.0
    # energy sent back into the presampler by a 1 GeV shower that starts in the strips
    albedo: float = 0.001364
    albedo_growth: float = 0.6766  # its power of the energy
    albedo_radius: float = 40.45
    # hadronic cascade
    # interaction length, quasi-elastic ones included, over the nominal inelastic one
    lambda_scale: float = 0.6565
    p_elastic: float = 0.3414  # share of quasi-elastic interactions at high energy
    p_elastic_low: float = 0.2765  # added share, falls as exp(-E)
    pt_elastic: float = 0.2069  # mean kick of one
    nuclear_scale: float = 0.4336  # mean energy of a nuclear break-up in lead-argon
    nuclear_slope: float = 0.5719  # its growth with ln(1 + E)
    nuclear_power: float = 0.603  # its growth with the mean Z of the material
    nuclear_shape: float = 2.279  # shape of its gamma distribution
    leading: float = 1.533  # mean 1 / (1 + leading) of what is left goes to the leading secondary
    stick: float = 2.219  # the same for every other one
    p_pi0: float = 0.42  # share of neutral pions among the other secondaries
    p_exchange: float = 0.2164  # probability that the leading pion turns neutral
    p_exchange_low: float = 0.15  # added probability, falls as exp(-E / 2)
    pi0_rise: float = 0.2863  # energy of an interaction from which neutral pions are made freely
    soft: float = 0.3032  # total energy below which no pion is made; the nucleus takes what is left
    p_nucleon: float = 0.1751  # share of fast nucleons among the secondaries
    pt_mean: float = 0.4263  # mean transverse momentum of a secondary
    binding: float = 0.2676  # share of a break-up that goes into binding
    f_gamma: float = 0.09957  # share of it in nuclear photons
    t_nucleon: float = 0.0613  # mean kinetic energy of an ejected nucleon
    f_proton: float = 0.404  # share of protons among them
    proton_lar: float = 1.077  # response to a stopping proton in lead-argon
    proton_tile: float = 0.481
    proton_shape: float = 1.035  # gamma shape of its signal
    neutron_lar: float = 0.8163  # response to a slow neutron in lead-argon
    neutron_tile: float = 2.306
    neutron_shape: float = 0.5778
    neutron_path: float = 489.2  # mean distance at which slow neutrons give up their energy
    neutron_path_tile: float = 250.0  # the same of those set free in the tiles, rich in hydrogen
    neutron_quantum: float = 0.004  # energy that it gives up at one place
    mip_scale: float = 1.014  # factor on the response to minimum ionising particles
    mip_shape: float = 14.57  # shape of the gamma distribution of their signal in 25 mm
    mip_radius: float = 0.6863  # mean distance of what they leave from the track
    delta_radius: float = 5.065  # the same of soft knock-on electrons
