"""Mixed precision: autocast, and a GradScaler where gradients are float16."""

import torch
from torch.nn.functional import cross_entropy
from toy import Net, accuracy, loaders

import msam

device = "cuda" if torch.cuda.is_available() else "cpu"
dtype = torch.float16 if device == "cuda" else torch.bfloat16

torch.manual_seed(0)
train, test = loaders()
model = Net().to(device)
scaler = torch.amp.GradScaler(device, enabled=dtype == torch.float16)
optimizer = msam.ModalityAwareSAM(
    model.parameters(),
    torch.optim.SGD,
    rho=0.05,
    lr=0.05,
    momentum=0.9,
    scaler=scaler,
)
evaluator = msam.CoalitionEvaluator(model)


def step(image, audio, labels):
    """The closure scales its loss; the optimizer unscales the update."""

    def closure():
        optimizer.zero_grad()
        with torch.autocast(device, dtype):
            loss = cross_entropy(model(image, audio), labels)
        scaler.scale(loss).backward()
        return loss

    def share():
        with torch.autocast(device, dtype):
            return evaluator.dominant_share(labels, image, audio)

    loss = optimizer.step(closure, share)
    scaler.update()
    return loss


for _ in range(5):
    for batch in train:
        step(*(part.to(device) for part in batch))
print(f"test accuracy {accuracy(model.cpu(), test):.3f}")
