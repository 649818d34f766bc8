"""SAM without its direction: the gradient at a random point around the weights."""

import torch

from msam.datasets import Split
from msam.methods import Method, StepReport


class Jitter(Method):
    """Step with the gradient at w + rho * u, u a random unit vector."""

    def setup(self, model, optimizer, config) -> None:
        """`config["rho"]` is the radius."""
        super().setup(model, optimizer, config)
        self.rho = config["rho"]

    def step(self, batch: Split) -> StepReport:
        """One step, one gradient."""
        weights = list(self.model.parameters())
        direction = [torch.randn_like(w) for w in weights]
        norm = torch.stack([u.square().sum() for u in direction]).sum().sqrt()
        with torch.no_grad():
            torch._foreach_add_(weights, direction, alpha=self.rho / float(norm))
        loss = self.closure(batch)()
        with torch.no_grad():
            torch._foreach_sub_(weights, direction, alpha=self.rho / float(norm))
        self.optimizer.step()
        return StepReport(loss.detach(), 1)
