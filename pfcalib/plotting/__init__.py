"""The general figures of the studies; what one study shows alone is drawn in its notebook.

``style`` has colours, looks of models and labels; ``curves`` curves with ratios, calibrations, ROC
curves, distributions and trainings; ``display`` events and clusters; ``inspection`` the page of
`pfcalib inspect --plot`; ``space`` events as boxes in space, to be turned around in JupyterLab.
"""
