"""The exceptions of the suite, drawn once.

::

    ApsberError                  anything the suite itself raises at a boundary
      ConfigurationError         a profile, command line or environment value is wrong
      InputError                 a plan or function argument is wrong (also a ValueError)
      DataFileError              a data file is missing, truncated or of another format
      FrameError                 a frame does not fit what its series announced
      PlanError                  a plan failed at the beamline
      StorageError               a folder or store is full, unwritable or fails verification
      ServiceError               a process of the suite did not start, answer or stop
      RunCancelled               somebody asked for the run to stop

Every message holds the offending value and says what to do about it. The command line prints the
message on one line and exits with a status other than 0.
"""


class ApsberError(Exception):
    """Anything the suite itself raises at a boundary."""


class ConfigurationError(ApsberError):
    """A profile, command line or environment value is wrong."""


class InputError(ApsberError, ValueError):
    """A plan or function argument is wrong."""


class DataFileError(ApsberError):
    """A data file is missing, truncated or of another format."""


class FrameError(ApsberError):
    """A frame does not fit what its series announced."""


class PlanError(ApsberError):
    """A plan failed at the beamline."""


class StorageError(ApsberError):
    """A folder or store is full, unwritable or fails verification."""


class ServiceError(ApsberError):
    """A process of the suite did not start, answer or stop."""


class RunCancelled(ApsberError):
    """Somebody asked for the run to stop."""
