"""An IPython profile that starts a beamline session."""
