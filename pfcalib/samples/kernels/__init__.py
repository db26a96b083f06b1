"""Compiled loops of the samples, in a folder of their own: a change next to a kernel has all kernels compiled anew."""
