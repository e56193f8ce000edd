# SPDX-License-Identifier: Apache-2.0
"""Training of one network on pictures of CSI; the best weights are those that validate best, or the last."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from training.activity.recipe import ActivityRecipe
from training.activity.variation import Pictures, blot
from training.optimisation import Budget, WeightMean, Workers, make_optimisers, update


@dataclass(frozen=True)
class Progress:
    """How far a run is: updates taken, loss of the last one, and accuracy on the validation side where it was asked."""

    step: int
    loss: float
    accuracy: float | None


def fit(
    model: nn.Module,
    pictures: Pictures,
    bin_width: float,
    labels: NDArray[np.int64],
    train: NDArray[np.int64],
    validation: NDArray[np.int64],
    recipe: ActivityRecipe,
    workers: Workers,
    report: Callable[[Progress], None] = lambda progress: None,
    weights: NDArray[np.float64] | None = None,
) -> nn.Module:
    """Train a classifier.

    Parameters
    ----------
    model : Module
        Takes (batch, n_steps, n_bins) pictures and (batch,) bin widths, gives (batch, class) logits.
    pictures : Pictures
    bin_width : float
    labels : (window,) int64
    train, validation : integer arrays
        Places of windows. Without validation windows the last weights are taken.
    recipe : ActivityRecipe
    workers : Workers
    report : callable, optional
        Called after every update.
    weights : (len(train),) float64, optional
        How often a window is drawn, relative to the others.

    Returns
    -------
    Module
        The running mean of the weights, at its best on the validation windows or at the end.
    """
    options = recipe.optimisation
    depth = recipe.model.depth
    if recipe.freeze_encoder:
        getattr(model, "encoder").requires_grad_(False)  # noqa: B009  (a CNN has none, and cannot be frozen)
    optimisers = make_optimisers(model, depth, options)
    mean = WeightMean(model, options.ema_decay)
    n_classes = int(labels.max()) + 1
    best, best_weights = -1.0, None
    step, budget = 0, Budget(options)
    often = max(1, options.steps // recipe.validations)

    def sums(inputs: Tensor, bin_widths: Tensor, targets: Tensor) -> Tensor:
        logits, smoothing = model(inputs, bin_widths), recipe.smoothing.labels
        total = F.cross_entropy(logits, targets, label_smoothing=smoothing, reduction="sum")
        return torch.stack([total, total.new_tensor(len(inputs))])

    batches = training_batches(pictures, labels, n_classes, train, recipe, weights)
    bin_widths = torch.full((options.batch_size,), bin_width)
    while budget.progress(step) < 1:
        inputs, targets = next(batches)
        model.train()
        value = workers.gradients(model, sums, lambda total: total[0] / total[1], inputs, bin_widths, targets)
        update(model, optimisers, budget.progress(step), options)
        step += 1
        mean.update(model, step)
        accuracy = None
        if len(validation) and (step % often == 0 or budget.progress(step) >= 1):
            predicted = probabilities(mean.model, pictures.plain[validation], bin_width, workers).argmax(axis=1)
            accuracy = float(np.mean(predicted == labels[validation]))
            if accuracy >= best:
                best, best_weights = accuracy, {name: part.clone() for name, part in mean.model.state_dict().items()}
        report(Progress(step, value, accuracy))
    if best_weights is not None:
        mean.model.load_state_dict(best_weights)
    return mean.model


def training_batches(
    pictures: Pictures,
    labels: NDArray[np.int64],
    n_classes: int,
    train: NDArray[np.int64],
    recipe: ActivityRecipe,
    weights: NDArray[np.float64] | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches of varied pictures and their (batch, class) targets, mixed in pairs."""
    rng = np.random.default_rng([recipe.seed, 3])
    size, variation = recipe.optimisation.batch_size, recipe.variation
    chances = None if weights is None else weights / weights.sum()
    coming = np.empty(0, np.int64)
    while True:
        while len(coming) < size:
            drawn = rng.permutation(train) if chances is None else rng.choice(train, len(train), p=chances)
            coming = np.concatenate([coming, drawn])
        chosen, coming = coming[:size], coming[size:]
        variants = rng.integers(0, variation.variants, size)
        varied = (rng.random(size) < variation.share)[:, None, None]
        batch = np.where(varied, pictures.varied[chosen, variants], pictures.plain[chosen]).astype(np.float32)
        inputs = torch.from_numpy(blot(batch, variation, rng))
        targets = F.one_hot(torch.from_numpy(labels[chosen]), n_classes).float()
        if recipe.smoothing.mixup:
            share = float(rng.beta(recipe.smoothing.mixup, recipe.smoothing.mixup))
            partner = torch.from_numpy(rng.permutation(size))
            inputs = share * inputs + (1 - share) * inputs[partner]
            targets = share * targets + (1 - share) * targets[partner]
        yield inputs, targets


def probabilities(
    model: nn.Module, plain: NDArray[np.float16], bin_width: float, workers: Workers
) -> NDArray[np.float32]:
    """Class probabilities of pictures: (picture, class)."""
    model.eval()

    def work(part: NDArray[np.float16]) -> NDArray[np.float32]:
        inputs = torch.from_numpy(part.astype(np.float32))
        return model(inputs, torch.full((len(part),), bin_width)).softmax(dim=1).numpy()

    parts = [plain[start : start + 64] for start in range(0, len(plain), 64)]
    return np.concatenate(list(workers.map(work, parts)))
