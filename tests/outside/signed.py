"""Joint training with the sign of the gradient: a method outside the package."""

from msam.datasets import Split
from msam.methods import Method, StepReport


class Signed(Method):
    """The base optimizer sees `scale` times the sign of every gradient entry."""

    def __init__(self, scale: float = 0.1) -> None:
        self.scale = scale

    def step(self, batch: Split) -> StepReport:
        """One step, one gradient."""
        loss = self.closure(batch)()
        for parameter in self.model.parameters():
            parameter.grad.sign_().mul_(self.scale)
        self.optimizer.step()
        return StepReport(loss.detach(), 1)
