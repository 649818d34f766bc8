"""M-SAM in a plain PyTorch loop."""

import torch
from torch.nn.functional import cross_entropy
from toy import Net, accuracy, loaders

import msam

torch.manual_seed(0)
train, test = loaders()
model = Net()
optimizer = msam.ModalityAwareSAM(
    model.parameters(), torch.optim.SGD, rho=0.05, lr=0.05, momentum=0.9
)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=5)
evaluator = msam.CoalitionEvaluator(model)


def step(image, audio, labels):
    """Two passes over the batch; between them the evaluator finds the share."""

    def closure():
        optimizer.zero_grad()
        loss = cross_entropy(model(image, audio), labels)
        loss.backward()
        return loss

    return optimizer.step(
        closure, share=lambda: evaluator.dominant_share(labels, image, audio)
    )


for _ in range(5):
    for batch in train:
        step(*batch)
    schedule.step()
print(f"test accuracy {accuracy(model, test):.3f}")
