"""Studies as notebooks: found, run, recorded and shown."""
