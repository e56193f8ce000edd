# SPDX-License-Identifier: Apache-2.0
"""Two processes that torchrun starts train as one does; and the place of a CPU's threads, tried on the CPU."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

from training import checkpoint, curves, finetune, pretrain
from training.accelerator import Accelerator, choose_workers
from training.batches import Batch, training_batches
from training.config import Optimisation, RecipeError
from training.optimisation import Workers
from training.processes import Processes, find_device

REPOSITORY = Path(__file__).resolve().parents[2]
# Both sides have the loss of the whole batch, and add it up in another order: float32 rounding is what differs, and
# grows from step to step.
TOLERANCE = 1e-5


def torchrun(script: str, *options: str | Path, processes: int = 2) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "TORCH_CPP_LOG_LEVEL": "ERROR"}
    return subprocess.run(
        [*command, "-m", f"training.{script}", *map(str, options)],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def losses(folder: Path) -> list[float]:
    return [entry["loss"] for entry in curves.entries_of(folder) if "loss" in entry]


def one_thread(recipe: Path, folder: Path) -> Path:
    path = folder / recipe.name
    path.write_text(recipe.read_text().replace("threads = 2", "threads = 1"))
    return path


def test_two_processes_give_the_curve_of_one_with_twice_the_batch(
    scenes: Path, recipes: dict[str, Path], tmp_path: Path
) -> None:
    """Each of two processes has 4 windows an update, the single one has 8, in one thread."""
    finetune.main(config=one_thread(recipes["finetune"], tmp_path), data=scenes, out=tmp_path / "one", steps=6)
    options = ("--config", one_thread(recipes["finetune"], tmp_path), "--data", scenes, "--out", tmp_path / "two")
    done = torchrun("finetune", *options, "--steps", "6")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("6 updates in") == 1  # the first process alone speaks
    assert len(losses(tmp_path / "two")) == 3  # and writes
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=TOLERANCE)
    one, two = (checkpoint.load(tmp_path / name / checkpoint.LAST) for name in ("one", "two"))
    for name, value in one.weights.items():
        torch.testing.assert_close(two.weights[name], value, rtol=1e-3, atol=1e-5)


def test_a_run_that_one_process_began_goes_on_with_two_as_if_nothing_had_been(
    scenes: Path, recipes: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretrain.main(config=recipes["pretrain"], data=scenes, out=tmp_path / "one", steps=6)

    def interrupted(*arguments: Any, **options: Any) -> Iterator[Batch]:
        yield from itertools.islice(training_batches(*arguments, **options), 2)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pretrain, "training_batches", interrupted)
        with pytest.raises(typer.Exit):
            pretrain.main(config=recipes["pretrain"], data=scenes, out=tmp_path / "two", steps=6)
    options = ("--config", one_thread(recipes["pretrain"], tmp_path), "--data", scenes, "--out", tmp_path / "two")
    done = torchrun("pretrain", *options, "--steps", "6", "--resume")
    assert done.returncode == 0, done.stderr
    assert checkpoint.load(tmp_path / "two" / checkpoint.LAST).step == 6
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=TOLERANCE)
    looks = [entry["step"] for entry in curves.entries_of(tmp_path / "two") if "held_out" in entry]
    assert looks == [0, 6]


def test_a_batch_that_does_not_divide_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(RecipeError, match="batch_size is 8, to be shared by 3 processes"):
        Processes(Optimisation(batch_size=8, device="cpu"))
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "2")
    assert Processes(Optimisation(batch_size=8, device="cpu")).own == slice(4, 6)


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_a_gpu_that_is_not_there_is_said_so() -> None:
    assert find_device("auto", 0) == torch.device("cpu")
    with pytest.raises(RecipeError, match="process 0 finds 0 GPUs that torch can use"):
        find_device("cuda", 0)


def test_a_cpu_has_threads_and_a_gpu_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "set_float32_matmul_precision", lambda precision: None)  # of all tests that follow
    with Processes(Optimisation(device="cpu")) as processes:
        chosen = choose_workers(Optimisation(device="cpu", threads=2), processes)
        assert isinstance(chosen, Workers)
        assert (chosen.count, chosen.device.type) == (2, "cpu")
        processes.device = torch.device("cuda", 0)
        chosen = choose_workers(Optimisation(precision="bf16"), processes)
        assert isinstance(chosen, Accelerator)
        assert chosen.bf16


@pytest.mark.parametrize("bf16", [False, True])
def test_an_accelerator_gives_the_gradients_that_threads_give(bf16: bool) -> None:
    torch.manual_seed(0)
    model, inputs, targets = torch.nn.Linear(64, 1), torch.randn(8, 64), torch.randn(8, 1)

    def sums(part: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        assert model(part).dtype == (torch.bfloat16 if bf16 else torch.float32)
        return ((model(part).float() - target) ** 2).sum()

    gradients, values = [], []
    for workers in (Accelerator(torch.device("cpu"), bf16), Workers(2, bf16)):
        values.append(workers.gradients(model, sums, torch.sqrt, inputs, targets))
        assert model.weight.grad is not None
        gradients.append(model.weight.grad.clone())
    tolerance = 2e-2 if bf16 else 1e-5
    assert values[0] == pytest.approx(values[1], rel=tolerance)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=tolerance, atol=tolerance)
    assert model.weight.dtype == torch.float32


@pytest.mark.parametrize("kind", ["pretrain", "finetune"])
@pytest.mark.parametrize("ships", [False, True], ids=["plain", "as what ships"])
def test_bfloat16_on_a_cpu_trains(
    ships: bool, kind: str, scenes: Path, recipes: dict[str, Path], tmp_path: Path
) -> None:
    text = recipes[kind].read_text().replace('precision = "f32"', 'precision = "bf16"')
    if ships:
        text = text.replace("[model]", '[model]\nembedding = "convolutions"\nhead = "pyramid"\nstem_features = 4')
        text = text.replace("[optimisation]", '[optimisation]\noptimiser = "muon"')
    recipe = tmp_path / "bf16.toml"
    recipe.write_text(text)
    script: Any = {"pretrain": pretrain, "finetune": finetune}[kind]
    script.main(config=recipe, data=scenes, out=tmp_path / "run", steps=4)
    values = losses(tmp_path / "run")
    assert values[-1] < values[0]
    made = checkpoint.load(tmp_path / "run" / checkpoint.LAST)
    assert made.provenance["precision"] == "bf16"
    assert all(value.dtype == torch.float32 for value in made.weights.values())


@pytest.mark.parametrize("kind", ["pretrain", "finetune"])
def test_a_run_on_an_accelerator_is_one_on_a_thread(
    kind: str, scenes: Path, recipes: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that a GPU's run does but for the GPU: the CPU takes its place."""
    script: Any = {"pretrain": pretrain, "finetune": finetune}[kind]
    recipe = one_thread(recipes[kind], tmp_path)
    script.main(config=recipe, data=scenes, out=tmp_path / "thread", steps=4)
    chosen = Accelerator(torch.device("cpu"), bf16=False, loaders=3)
    monkeypatch.setattr(script, "choose_workers", lambda options, processes: chosen)
    script.main(config=recipe, data=scenes, out=tmp_path / "accelerator", steps=4)
    assert losses(tmp_path / "accelerator") == pytest.approx(losses(tmp_path / "thread"), rel=TOLERANCE)
    for part in ("linear_probe", "miou"):
        scores = [[e[part] for e in curves.entries_of(tmp_path / n) if part in e] for n in ("thread", "accelerator")]
        assert scores[1] == pytest.approx(scores[0], abs=0.02)
