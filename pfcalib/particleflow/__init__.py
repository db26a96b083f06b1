"""Particle flow: tracks and clusters to charged and neutral objects and jets (arXiv:1703.10485).

Doors: `event` (what an event is), `files` (events of an MLTree file), `methods` (named ways to
subtract), `flow` (one event to objects), `stored` (objects in files, decisions made again),
`learned` (subtraction by a network), `deposit` (what a track is expected to leave), `cones` (clouds
around tracks, single pions as events), `conformance` (is a file what Athena's neural E/p loads?),
`elements` and `one_network` (tracks and clusters to particles by one network), `jets`, `jetscale`,
`jetfiles` (jets of all events of a file).
"""
