"""How a training proceeds, on the terminal, and what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from apsber_bluesky.cli._display import RunDisplay
from apsber_bluesky.cli._output import Output, duration

if TYPE_CHECKING:
    from apsber_bluesky.core import ModelCard
    from apsber_bluesky.processing.learned import ExampleFolder, Recipe


class BarOf:
    """A bar of a display.

    Parameters
    ----------
    display : RunDisplay
        The display.
    title : str
        What is done.
    """

    def __init__(self, display: RunDisplay, title: str) -> None:
        self._display, self._title = display, title

    def __call__(self, done: int, total: int) -> None:
        """So much is done."""
        self._display({"type": "stage", "stage": self._title, "done": done, "total": total})


class TrainingDisplay:
    """A bar of the steps, and a line for each checkpoint.

    Parameters
    ----------
    display : RunDisplay
        Where the bar is drawn.
    output : Output
        Where lines are said.
    recipe : Recipe
        What is trained.
    examples : ExampleFolder
        What on; a few steps are tried with them, to tell how long all will take.
    device : str
        Where.
    """

    def __init__(
        self,
        display: RunDisplay,
        output: Output,
        recipe: Recipe,
        examples: ExampleFolder,
        device: str,
    ) -> None:
        self._bar, self._console = BarOf(display, "train     steps"), output.progress_console
        self._recipe, self._examples, self._device = recipe, examples, device
        self._begun = False

    def step(self, done: int) -> None:
        """So many steps are done."""
        steps = self._recipe.settings.steps
        if not self._begun:
            self._begun = True
            self._say_duration(done, steps)
        self._bar(done, steps)

    def checkpoint(self, step: int, loss: float, held_out_loss: float) -> None:
        """The state is saved."""
        self._say(f"step      {step}: loss {loss:.5f}, held out {held_out_loss:.5f}")

    def _say_duration(self, done: int, steps: int) -> None:
        from apsber_bluesky.processing.learned import step_seconds

        left = (steps - done) * step_seconds(self._recipe, self._examples, self._device)
        self._say(f"training  steps {done} to {steps}, about {duration(left)} on {self._device}")

    def _say(self, text: str) -> None:
        # The console that the bar is drawn on keeps the two apart.
        self._console.print(text, markup=False)


def use_processors(count: int) -> None:
    """Have torch work with so many threads."""
    import torch

    torch.set_num_threads(count)


def say_card(output: Output, card: ModelCard, folder: Path, *, seconds: float) -> None:
    """Say what a training came to."""
    path = folder / f"{card.name}.yaml"
    for figure, value in card.figures.items():
        output.say(f"{figure.replace('_', ' '):40} {value:.4g}")
    output.say(f"written   {path} in {seconds:.0f} s")
    output.result(
        {
            "card": str(path.absolute()),
            "sha256": card.sha256,
            "temperature": card.temperature,
            "figures": card.figures,
            "seconds": round(seconds, 1),
        }
    )
