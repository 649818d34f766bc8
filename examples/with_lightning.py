"""Lightning has the closure that `step` needs; `optimizer_step` adds the share."""

import lightning
import torch
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from toy import Net, accuracy, loaders

import msam


class Module(lightning.LightningModule):
    """A network with M-SAM; plain SAM would not need `optimizer_step`."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net()
        self.evaluator = msam.CoalitionEvaluator(self.net)

    def training_step(self, batch):
        """Loss of a batch."""
        image, audio, labels = self.batch = batch
        return cross_entropy(self.net(image, audio), labels)

    def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure):
        """The closure clears gradients, calls `training_step`, goes backward."""

        def share():
            image, audio, labels = self.batch
            return self.evaluator.dominant_share(labels, image, audio)

        optimizer.step(optimizer_closure, share=share)

    def configure_optimizers(self):
        """M-SAM around SGD; on several devices it has to know the wrapped model."""
        model = self.trainer.strategy.model
        ddp = model if isinstance(model, DistributedDataParallel) else None
        return msam.ModalityAwareSAM(
            self.parameters(),
            torch.optim.SGD,
            rho=0.05,
            lr=0.05,
            momentum=0.9,
            ddp=ddp,
        )


lightning.seed_everything(0, verbose=False)
train, test = loaders()
module = Module()
trainer = lightning.Trainer(
    max_epochs=5,
    accelerator="auto",
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(module, train)
print(f"test accuracy {accuracy(module.net.cpu(), test):.3f}")
