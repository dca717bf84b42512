"""Evaluation of a net without training it: logits, loss and accuracy."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ticketlab import gpu
from ticketlab.data.sets import Batches, Images
from ticketlab.training.net import Net


@dataclass(frozen=True)
class Score:
    """Mean loss and accuracy on `n` images, without augmentation, in eval mode."""

    loss: float
    accuracy: float
    n: int


def predict(net: Net, images: Images, batches: Batches, batch: int = 500) -> Tensor:
    """Return logits (N, C), float32, in eval mode and without augmentation."""
    training = net.model.training
    net.model.eval()
    logits = []
    with torch.no_grad(), gpu.autocast(net.device, net.runtime):
        for index in torch.arange(len(images), device=net.device).split(batch):
            logits.append(net.forward(gpu.layout(batches(index), net.runtime)).float())
    net.model.train(training)
    return torch.cat(logits)


def evaluate(net: Net, images: Images, batches: Batches) -> Score:
    """Return loss and accuracy on `images`."""
    return score_of(predict(net, images, batches), images.y)


def score_of(logits: Tensor, labels: Tensor) -> Score:
    """Return loss and accuracy of logits (N, C) against labels (N,)."""
    loss = functional.cross_entropy(logits, labels)
    hits = (logits.argmax(1) == labels).float().mean()
    mean_loss, accuracy = torch.stack([loss, hits]).tolist()
    return Score(mean_loss, accuracy, len(labels))
