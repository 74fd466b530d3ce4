"""Runs as people look at them: a report, Jupyter, napari."""
