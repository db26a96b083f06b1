"""Time projection chambers: charge on pads and its clusters; energy loss of tracks, by which kinds
of particles are told apart.
"""
