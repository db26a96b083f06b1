"""Particles to cells: guns, parametrised showers, noise and pile-up."""
