"""Compiled loops of the calibration, in a folder of their own: a change next to a kernel has all kernels compiled anew."""
