"""Several processes: torchrun --nproc-per-node 2 examples/ddp.py."""

import torch
import torch.distributed as dist
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler
from toy import Net, accuracy, dataset, loaders

import msam

dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
device = (
    torch.device("cuda", dist.get_rank())
    if torch.cuda.is_available()
    else torch.device("cpu")
)

torch.manual_seed(0)
data = dataset(0, 2048)
sampler = DistributedSampler(data)
train = DataLoader(data, 32, sampler=sampler, drop_last=True)
model = DistributedDataParallel(Net().to(device))
optimizer = msam.ModalityAwareSAM(
    model.parameters(), torch.optim.SGD, rho=0.05, lr=0.05, momentum=0.9, ddp=model
)  # sync_perturbation=False would let every process climb along its own gradient
evaluator = msam.CoalitionEvaluator(model)


def step(image, audio, labels):
    """The optimizer averages the shares, so that all weights stay the same."""

    def closure():
        optimizer.zero_grad()
        loss = cross_entropy(model(image, audio), labels)
        loss.backward()
        return loss

    return optimizer.step(
        closure, share=lambda: evaluator.dominant_share(labels, image, audio)
    )


for epoch in range(5):
    sampler.set_epoch(epoch)
    for batch in train:
        step(*(part.to(device) for part in batch))
if dist.get_rank() == 0:
    print(f"test accuracy {accuracy(model.module.cpu(), loaders()[1]):.3f}")
dist.destroy_process_group()
