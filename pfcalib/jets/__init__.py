"""Jets: calibration, boosted objects, the Lund plane, taggers that leave the mass alone."""
