"""Layouts of files: one module each, all of which yield the same `Sample`; `registry.recognise`
tells which one a file has.
"""
