"""What all sections of a profile have in common."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict


def _expand(path: Path) -> Path:
    return Path(os.path.expandvars(path)).expanduser()


FolderPath = Annotated[Path, AfterValidator(_expand)]


class Settings(BaseModel):
    """A section of a profile: unknown keys are errors, and it never changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)
