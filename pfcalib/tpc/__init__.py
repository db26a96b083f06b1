"""Time projection chambers: energy loss of tracks, by which particles are told apart."""
