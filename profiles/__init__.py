"""One YAML file per beamline; ``apsber_bluesky.core.load_profile`` reads them by name."""
