"""IPython at the beamline: ``ipython --profile-dir profiles/ipython``."""

c = get_config()  # type: ignore[name-defined]  # noqa: F821 - IPython brings it

c.InteractiveShellApp.exec_lines = ["from apsber_bluesky.session.startup import *"]
c.TerminalIPythonApp.display_banner = False
# What was measured is in the catalogue; what was typed stays out of the source tree.
c.HistoryManager.enabled = False
