"""General figures: curves with a ratio panel, distributions, ROC curves, maps, an event display."""
