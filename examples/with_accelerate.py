"""Accelerate prepares the model and the data; the optimizer stays outside."""

import torch
from accelerate import Accelerator
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from toy import Net, accuracy, loaders

import msam

torch.manual_seed(0)
accelerator = Accelerator()
train, test = loaders()
model, train = accelerator.prepare(Net(), train)
optimizer = msam.ModalityAwareSAM(  # a prepared optimizer would not pass `share` on
    model.parameters(),
    torch.optim.SGD,
    rho=0.05,
    lr=0.05,
    momentum=0.9,
    scaler=accelerator.scaler,
    ddp=model if isinstance(model, DistributedDataParallel) else None,
)
evaluator = msam.CoalitionEvaluator(model)


def step(image, audio, labels):
    """As in the plain loop, with Accelerate's backward pass."""

    def closure():
        optimizer.zero_grad()
        loss = cross_entropy(model(image, audio), labels)
        accelerator.backward(loss)
        return loss

    loss = optimizer.step(
        closure, share=lambda: evaluator.dominant_share(labels, image, audio)
    )
    if accelerator.scaler:
        accelerator.scaler.update()
    return loss


for _ in range(5):
    for batch in train:
        step(*batch)
accelerator.print(
    f"test accuracy {accuracy(accelerator.unwrap_model(model).cpu(), test):.3f}"
)
