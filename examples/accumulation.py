"""Gradient accumulation: the closure goes through the micro-batches."""

import torch
from torch.nn.functional import cross_entropy
from toy import Net, accuracy, loaders

import msam

MICRO = 4

torch.manual_seed(0)
train, test = loaders(batch=256)
model = Net()
optimizer = msam.ModalityAwareSAM(
    model.parameters(), torch.optim.SGD, rho=0.05, lr=0.1, momentum=0.9
)
evaluator = msam.CoalitionEvaluator(model)


def clip(*_):
    """Clip the gradient of the update; those of the two passes stay as they are."""
    torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)


optimizer.base.register_step_pre_hook(clip)


def step(*batch):
    """One update from `MICRO` micro-batches of equal size."""
    parts = list(zip(*(part.chunk(MICRO) for part in batch), strict=True))

    def closure():
        optimizer.zero_grad()
        total = torch.zeros(())
        for image, audio, labels in parts:
            loss = cross_entropy(model(image, audio), labels) / MICRO
            loss.backward()
            total += loss.detach()
        return total

    def share():
        shares = [
            evaluator.shares(labels, image, audio) for image, audio, labels in parts
        ]
        return max(sum(part[name] for part in shares) / MICRO for name in shares[0])

    return optimizer.step(closure, share)


for _ in range(10):
    for batch in train:
        step(*batch)
print(f"test accuracy {accuracy(model, test):.3f}")
