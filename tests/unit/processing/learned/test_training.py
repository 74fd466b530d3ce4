"""Training: what is learnt, what is drawn, and that an interruption changes nothing."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from apsber_bluesky.core import InputError
from apsber_bluesky.processing.learned import (
    UNKNOWN,
    ExampleFolder,
    PatchDraw,
    SliceNetwork,
    TrainingSettings,
    denoising_loss,
    draw_patch,
    segmentation_loss,
    train,
)

SETTINGS = TrainingSettings(steps=12, batch=2, patch=16, checkpoint_steps=5)
CLASSES = ["air", "rock", "gold"]


def small_network(widths: tuple[int, ...] = (8, 16)) -> SliceNetwork:
    torch.manual_seed(3)
    return SliceNetwork(slices=3, outputs=1, widths=widths, biases=False, residual=True)


@pytest.fixture
def examples(tmp_path: Path) -> ExampleFolder:
    """Discs of rock with a grain of gold: labels, attenuation, and that with noise."""
    folder = ExampleFolder.create(tmp_path / "examples", "discs", CLASSES)
    random = np.random.default_rng(0)
    y, x = np.mgrid[:32, :32] - 15.5
    for _ in range(3):
        labels = np.zeros((6, 32, 32), np.uint8)
        labels[:, np.hypot(x, y) < random.uniform(8, 14)] = 1
        labels[:, np.hypot(x - random.uniform(-4, 4), y) < 3] = 2
        truth = np.array([0.0, 1.0, 2.0])[labels]
        noisy = truth + 0.4 * random.standard_normal((2, *truth.shape))
        folder.add(noisy, targets=truth[None], labels=labels)
    return folder


def weights(network: SliceNetwork) -> list[bytes]:
    return [value.numpy().tobytes() for value in network.state_dict().values()]


def test_a_denoiser_learns_to_take_noise_away(examples: ExampleFolder, tmp_path: Path) -> None:
    settings = replace(SETTINGS, steps=240, batch=4, learning_rate=5e-3, checkpoint_steps=60)
    losses = []
    average = train(
        small_network(widths=(32, 32)),
        examples,
        settings,
        denoising_loss,
        checkpoint=tmp_path / "state",
        labels=False,
        report=lambda step, loss: losses.append(loss),
    )
    assert len(losses) == 4
    assert losses[-1] < 0.6 * losses[0]
    noisy = np.asarray(examples.inputs(0)[0, 1:4], np.float32)
    truth = np.asarray(examples.targets(0)[0, 2], np.float32)
    with torch.no_grad():
        found = average(torch.from_numpy(noisy)[None])[0, 0].numpy()
    assert np.std(found - truth) < 0.6 * np.std(noisy[1] - truth)


def test_a_denoiser_without_biases_knows_no_unit(examples: ExampleFolder, tmp_path: Path) -> None:
    average = train(
        small_network(), examples, SETTINGS, denoising_loss, checkpoint=tmp_path / "s", labels=False
    )
    images = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        assert torch.allclose(average(1024 * images), 1024 * average(images), rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("stop_at", [3, 5, 11])
def test_a_training_that_was_interrupted_ends_with_the_same_bits(
    stop_at: int, examples: ExampleFolder, tmp_path: Path
) -> None:
    undisturbed = train(
        small_network(), examples, SETTINGS, denoising_loss, checkpoint=tmp_path / "a", labels=False
    )
    stop, steps = threading.Event(), []

    def note(step: int) -> None:
        steps.append(step)
        if step == stop_at:
            stop.set()

    for cancelled in (stop, None):
        # First weights are others the second time: those of the checkpoint count.
        network = small_network()
        if cancelled is None:
            torch.nn.init.ones_(network.last.weight)
        continued = train(
            network,
            examples,
            SETTINGS,
            denoising_loss,
            checkpoint=tmp_path / "b",
            labels=False,
            progress=note,
            cancelled=cancelled,
        )
    assert steps == [*range(stop_at + 1), *range(stop_at, SETTINGS.steps + 1)]
    assert weights(continued) == weights(undisturbed)


def test_what_watches_a_training_does_not_change_it(
    examples: ExampleFolder, tmp_path: Path
) -> None:
    seen = []

    def validate(step: int, average: SliceNetwork) -> None:
        assert not average.training
        with torch.no_grad():
            average(torch.randn(1, 3, 16, 16))
        seen.append(step)

    watched, alone = (
        train(
            small_network(),
            examples,
            SETTINGS,
            denoising_loss,
            checkpoint=tmp_path / name,
            labels=False,
            validate=each,
        )
        for name, each in (("a", validate), ("b", lambda step, average: None))
    )
    assert seen == [5, 10, 12]
    assert weights(watched) == weights(alone)


def test_a_checkpoint_of_another_training_is_refused(
    examples: ExampleFolder, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    train(small_network(), examples, SETTINGS, denoising_loss, checkpoint=state, labels=False)
    with pytest.raises(InputError, match=r"another training.*'patch': 16"):
        train(
            small_network(),
            examples,
            replace(SETTINGS, patch=24),
            denoising_loss,
            checkpoint=state,
            labels=False,
        )


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 half of one"])
def test_a_file_that_is_no_checkpoint_is_refused(
    content: bytes, examples: ExampleFolder, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    state.write_bytes(content)
    with pytest.raises(InputError, match="no checkpoint of a training"):
        train(small_network(), examples, SETTINGS, denoising_loss, checkpoint=state, labels=False)
    torch.save([1, 2], state)
    with pytest.raises(InputError, match="no checkpoint of a training"):
        train(small_network(), examples, SETTINGS, denoising_loss, checkpoint=state, labels=False)


def test_a_loss_that_is_not_finite_stops_the_training(
    examples: ExampleFolder, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"loss is (nan|inf) at step .* lower learning rate"):
        train(
            small_network(),
            examples,
            replace(SETTINGS, learning_rate=1e30),
            denoising_loss,
            checkpoint=tmp_path / "state",
            labels=False,
        )
    assert not (tmp_path / "state").exists()


def test_the_segmentation_loss_does_not_see_unknown_voxels() -> None:
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 8, 8, generator=random)
    labels = torch.randint(0, 3, (2, 8, 8), generator=random).to(torch.uint8)
    labels[:, :3] = UNKNOWN
    other = logits.clone()
    other[:, :, :3] += 5 * torch.randn(2, 3, 3, 8, generator=random)
    inputs = torch.zeros(2, 3, 8, 8)
    first, second = (segmentation_loss(inputs, each, labels).item() for each in (logits, other))
    assert first == pytest.approx(second, rel=1e-6)
    right = 30.0 * torch.nn.functional.one_hot(labels.long().clamp(max=2), 3).movedim(-1, 1)
    assert segmentation_loss(inputs, right, labels).item() < 1e-3 < first


def test_inputs_and_target_of_a_patch_are_turned_alike(tmp_path: Path) -> None:
    folder = ExampleFolder.create(tmp_path / "ramp", "a ramp", [])
    ramp = np.arange(5 * 24 * 24, dtype=np.float32).reshape(5, 24, 24) % 997
    folder.add(ramp[None], targets=ramp[None])
    draw, shapes = PatchDraw(slices=3, size=16, labels=False), set()
    for seed in range(24):
        images, target = draw_patch(folder, draw, np.random.default_rng(seed))
        np.testing.assert_array_equal(images[1], target)
        shapes.add((np.sign(target[0, 1] - target[0, 0]), np.sign(target[1, 0] - target[0, 0])))
    assert len(shapes) > 2


def test_rare_classes_are_drawn_often_and_unknown_voxels_are_not_sought(tmp_path: Path) -> None:
    folder = ExampleFolder.create(tmp_path / "rare", "a spot", CLASSES)
    labels = np.full((3, 64, 64), UNKNOWN, np.uint8)
    labels[:, 50:54, 4:8], labels[:, 10:12, 60:62] = 1, 2
    folder.add(np.zeros((1, 3, 64, 64)), labels=labels)
    draw = PatchDraw(slices=3, size=16, labels=True)
    drawn = [draw_patch(folder, draw, np.random.default_rng(seed))[1] for seed in range(200)]
    with_gold = np.mean([(patch == 2).any() for patch in drawn])
    with_either = np.mean([(patch != UNKNOWN).any() for patch in drawn])
    assert 0.2 < with_gold < 0.5
    # A third less if what is unknown were one of the classes.
    assert with_either > 0.4
