"""Three modalities; M-SAM perturbs all weights or the dominant encoder alone."""

import torch
from torch import nn
from torch.nn.functional import cross_entropy

import msam

WIDTHS = {"text": 24, "image": 64, "audio": 16}
NOISE = {"text": 2.0, "image": 4.0, "audio": 4.0}
CLASSES = 4


def batch(draw: torch.Generator, size: int = 64):
    """Inputs of three modalities, size x width, and labels."""
    labels = torch.randint(CLASSES, (size,), generator=draw)
    patterns = torch.Generator().manual_seed(0)
    inputs = {
        name: torch.randn(CLASSES, width, generator=patterns)[labels]
        + NOISE[name] * torch.randn(size, width, generator=draw)
        for name, width in WIDTHS.items()
    }
    return inputs, labels


class Trio(nn.Module):
    """Late fusion: every modality has an encoder with a head, the logits are added.

    With `modalities`, `encode` and `fuse` the evaluator shares features between
    coalitions; a model without them has a forward pass for each coalition.
    """

    def __init__(self) -> None:
        super().__init__()
        self.modalities = tuple(WIDTHS)
        self.encoders = nn.ModuleDict(
            {
                name: nn.Sequential(nn.Linear(width, 32), nn.ReLU())
                for name, width in WIDTHS.items()
            }
        )
        self.heads = nn.ModuleDict(
            {name: nn.Linear(32, CLASSES) for name in WIDTHS}
        )

    def encode(self, inputs):
        """Modality -> features, B x 32."""
        return {name: self.encoders[name](x) for name, x in inputs.items()}

    def fuse(self, features):
        """Logits, B x 4."""
        return sum(self.heads[name](x) for name, x in features.items())

    def forward(self, inputs):
        """Logits, B x 4."""
        return self.fuse(self.encode(inputs))


def train(reading: str) -> float:
    """Train in the reading `loss` or `encoder`; the accuracy on new data."""
    torch.manual_seed(0)
    model = Trio()
    groups = [
        {"params": [*model.encoders[m].parameters()], "modality": m}
        for m in model.modalities
    ]
    groups.append({"params": [*model.heads.parameters()]})
    optimizer = msam.ModalityAwareSAM(
        groups, torch.optim.SGD, rho=0.05, lr=0.05, momentum=0.9
    )
    evaluator = msam.CoalitionEvaluator(model)
    shares: dict[str, torch.Tensor] = {}

    def share():
        shares.update(evaluator.shares(labels, inputs))
        return max(shares.values())

    def dominant():
        return max(shares, key=shares.get)

    def closure():
        optimizer.zero_grad()
        loss = cross_entropy(model(inputs), labels)
        loss.backward()
        return loss

    draw = torch.Generator().manual_seed(1)
    for _ in range(200):
        inputs, labels = batch(draw)
        optimizer.step(
            closure, share, dominant=dominant if reading == "encoder" else None
        )
    inputs, labels = batch(draw, 2000)
    return float((model(inputs).argmax(-1) == labels).float().mean())


for reading in ("loss", "encoder"):
    print(f"{reading}: test accuracy {train(reading):.3f}")
