"""The search of `search.py` as one writes it by hand in PyTorch, for comparison.

LeNet-300-100, Adam 1.2e-3, batches of 60, 20 % of the surviving weights of each layer pruned
a round (10 % of the output layer), back to the initial weights; images and orders of epochs
are tensors in memory; gradients are masked before the step and weights after it. Like ours, a
round ends with the loss and accuracy of all parts and with its ticket in a file.

PyTorch is no dependency of this package. Give it an environment of its own:

    python -m venv /tmp/torch && /tmp/torch/bin/pip install torch numpy
    python benchmarks/search.py --torch_python=/tmp/torch/bin/python

Prints one line of JSON: wall and CPU seconds a step, of all rounds after some steps to warm up.
"""

import argparse
import json
import os
import pathlib
import tempfile
import time

import numpy as np
import torch
from torch import nn

BATCH, RATE, WARM_UP, TRAIN = 60, 1.2e-3, 200, 50_000


def load(path, validation):
    """Train, validation and test part, standardized by the training part."""
    with np.load(path) as file:
        x, y, x_test, y_test = (file[k] for k in ("x_train", "y_train", "x_test", "y_test"))
    x, x_test = (a.reshape(len(a), -1).astype(np.float32) / 255 for a in (x, x_test))
    order = np.random.default_rng(0).permutation(len(x))
    held, kept = order[:validation], order[validation:][:TRAIN]
    mean, deviation = x[kept].mean(), x[kept].std()
    parts = [(x[kept], y[kept]), (x[held], y[held]), (x_test, y_test)]
    return [
        (torch.from_numpy((a - mean) / deviation), torch.from_numpy(b.astype(np.int64)))
        for a, b in parts
    ]


def lenet(inputs, classes):
    layers = [nn.Linear(inputs, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(100, classes))


def kernels(model):
    return [layer.weight for layer in model if isinstance(layer, nn.Linear)]


def train(model, masks, part, steps, fused):
    optimizer = torch.optim.Adam(model.parameters(), RATE, fused=fused)
    loss_of, (x, y) = nn.CrossEntropyLoss(), part
    masked, epoch = list(zip(kernels(model), masks, strict=True)), len(x) // BATCH
    for step in range(steps):
        if step % epoch == 0:
            order = torch.randperm(len(x))
        chosen = order[step % epoch * BATCH :][:BATCH]
        optimizer.zero_grad()
        loss_of(model(x[chosen]), y[chosen]).backward()
        with torch.no_grad():
            for weight, mask in masked:
                weight.grad.mul_(mask)
            optimizer.step()
            for weight, mask in masked:
                weight.mul_(mask)


@torch.no_grad()
def evaluate(model, part):
    loss, right = 0.0, 0
    for x, y in zip(*(a.split(2500) for a in part), strict=True):
        logits = model(x)
        loss += nn.functional.cross_entropy(logits, y, reduction="sum").item()
        right += (logits.argmax(1) == y).sum().item()
    return loss / len(part[1]), right / len(part[1])


@torch.no_grad()
def pruned(weight, mask, fraction):
    """The mask without the smallest of the weights that are alive."""
    k = round(fraction * int(mask.sum()))
    scores = torch.where(mask.bool(), weight.abs(), torch.inf).flatten()
    mask = mask.flatten().clone()
    mask[scores.topk(k, largest=False).indices] = 0
    return mask.view_as(weight)


def search(parts, rounds, steps, fused, folder):
    torch.manual_seed(0)
    model = lenet(parts[0][0].shape[1], int(parts[0][1].max()) + 1)
    initial = {name: value.clone() for name, value in model.state_dict().items()}
    masks = [torch.ones_like(w) for w in kernels(model)]
    for r in range(rounds):
        if r:
            fractions = [0.2] * (len(masks) - 1) + [0.1]
            masks = [pruned(*a) for a in zip(kernels(model), masks, fractions, strict=True)]
            model.load_state_dict(initial)
            with torch.no_grad():
                for weight, mask in zip(kernels(model), masks, strict=True):
                    weight.mul_(mask)
        train(model, masks, parts[0], steps, fused)
        numbers = [evaluate(model, part) for part in parts]
        state = {"masks": [m.bool() for m in masks], "trained": model.state_dict()}
        torch.save({**state, "initial": initial, "numbers": numbers}, folder / f"round_{r}.pt")
    return numbers[2][1], sum(int(m.sum()) for m in masks) / sum(m.numel() for m in masks)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", required=True, help="An .npz like MNIST's.")
    parser.add_argument("--validation", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--fused", type=int, default=1, help="Adam in one kernel, or 0.")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    parts, fused = load(args.dataset, args.validation), bool(args.fused)
    with tempfile.TemporaryDirectory() as folder:
        search(parts, 2, WARM_UP, fused, pathlib.Path(folder))
        wall, cpu = time.perf_counter(), time.process_time()
        accuracy, density = search(parts, args.rounds, args.steps, fused, pathlib.Path(folder))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    n = args.rounds * args.steps
    found = {"wall": wall / n, "cpu": cpu / n, "test_accuracy": accuracy, "density": density}
    print(json.dumps({**found, "torch": torch.__version__}))


if __name__ == "__main__":
    main()
