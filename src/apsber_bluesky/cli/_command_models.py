"""``apsber models``: which learned models there are, and whether they are whole."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from apsber_bluesky.cli._output import JsonOption, Output, ProfileOption, profile_with

if TYPE_CHECKING:
    from apsber_bluesky.core import ModelCard

ModelArgument = Annotated[
    str, typer.Argument(help="Name of a model, or path of its card.", metavar="MODEL")
]

models = typer.Typer(help="List, show and check learned models.", no_args_is_help=True)


@models.command("list")
def list_them(profile: ProfileOption = "simulated", as_json: JsonOption = False) -> None:
    """List the models that can be named: the beamline's own, and those of the suite."""
    from apsber_bluesky.processing.learned import list_models

    output = Output(as_json=as_json)
    own = _own_folder(profile)
    found = list_models(own)
    table = Table("name", "task", "version", "from", "what it is", box=None)
    for model in found:
        card = model.card
        about = (card.task, card.version) if card else ("?", "?")
        said = card.description if card else model.problem
        table.add_row(model.name, *about, model.origin, " ".join(said.split()))
    output.console.print(table if found else "there are no models")
    output.result(
        {
            "own_folder": None if own is None else str(own),
            "models": [
                {
                    "name": model.name,
                    "card": str(model.path),
                    "origin": model.origin,
                    "task": model.card.task if model.card else None,
                    "version": model.card.version if model.card else None,
                    "problem": model.problem,
                }
                for model in found
            ],
        }
    )


@models.command()
def show(
    model: ModelArgument, profile: ProfileOption = "simulated", as_json: JsonOption = False
) -> None:
    """Show what a model takes and gives, how it was trained and how well it does."""
    from apsber_bluesky.processing.learned import find_model

    output = Output(as_json=as_json)
    card, folder = find_model(model, _own_folder(profile))
    output.say_title(card.name, f"version {card.version}, {card.license}")
    output.say(" ".join(card.description.split()))
    for what, text in _facts(card, folder):
        output.say(f"{what:10}{text}")
    output.result({**card.model_dump(mode="json"), "folder": str(folder.absolute())})


@models.command()
def check(
    model: Annotated[
        str | None, typer.Argument(help="One model; all of them by default.", metavar="MODEL")
    ] = None,
    profile: ProfileOption = "simulated",
    as_json: JsonOption = False,
) -> None:
    """Check that models are what their cards say, and run each once on noise."""
    output = Output(as_json=as_json)
    problems = _check_all(_own_folder(profile), model)
    for name, problem in problems.items():
        output.say(f"{name}: {problem or 'whole, and runs'}")
    broken = [name for name, problem in problems.items() if problem]
    output.result({"checked": sorted(problems), "problems": {n: problems[n] for n in broken}})
    if broken:
        raise typer.Exit(1)


def _check_all(own: Path | None, name: str | None) -> dict[str, str]:
    from apsber_bluesky.core import ApsberError
    from apsber_bluesky.processing.learned import find_model, list_models

    if name is not None:
        # One that was asked for by name must be there.
        found = {name: find_model(name, own)}
        problems = {}
    else:
        listed = list_models(own)
        found = {each.name: (each.card, each.path.parent) for each in listed if each.card}
        problems = {each.name: each.problem for each in listed if not each.card}
    for each, (card, folder) in found.items():
        problems[each] = ""
        try:
            _try(card, folder)
        except ApsberError as error:
            problems[each] = " ".join(str(error).split())
    return problems


def _try(card: ModelCard, folder: Path) -> None:
    """Run a model on noise, on the processor, which every machine has."""
    import numpy as np

    from apsber_bluesky.core import LearnedSettings
    from apsber_bluesky.processing.learned import load_model

    low, high = card.input.minimum, card.input.maximum
    shape = (1, card.input.slices, 128, 128)
    noise = np.random.default_rng(0).uniform(low, high, shape).astype(np.float32)
    load_model(card, folder, LearnedSettings(model=card.name, device="cpu")).apply(noise)


def _facts(card: ModelCard, folder: Path) -> list[tuple[str, str]]:
    taken = card.input
    sizes = (
        "any size"
        if taken.pixel_size_um is None
        else "{:g} to {:g} um".format(*taken.pixel_size_um)
    )
    facts = [
        ("task", card.task),
        ("takes", f"{taken.slices} neighbouring slices" if taken.slices > 1 else "one image"),
        ("values", f"{taken.minimum:g} to {taken.maximum:g} {taken.unit}"),
        ("pixels", sizes),
    ]
    if card.classes:
        facts.append(("classes", ", ".join(card.classes)))
    if card.output_unit:
        facts.append(("gives", card.output_unit))
    facts += [("file", str(folder / card.file)), ("hash", card.sha256)]
    facts += [("figure", f"{name} {value:g}") for name, value in card.figures.items()]
    return [*facts, *(("training", f"{name}: {said}") for name, said in card.training.items())]


def _own_folder(profile: str) -> Path | None:
    return profile_with(profile, None).processing.models
