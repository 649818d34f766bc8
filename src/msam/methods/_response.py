"""M-SAM in the reading `response`: a modality's loss is that of its own Shapley response.

    L_m = v_m CE(Phi_m, y)

L_d of the dominant modality is perturbed, eps = rho grad L_d / ||grad L_d||, the sum of the others, L_s, is
not: the gradient of the step is grad L_d(w + eps) + grad L_s(w) (Algorithm 1).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from msam.coalitions import coalition_logits, responses
from msam.datasets import Split
from msam.methods._base import StepReport
from msam.methods._dominance import at
from msam.models import MultimodalClassifier
from msam.optim import ModalityAwareSAM


def response_step(
    sam: ModalityAwareSAM,
    model: MultimodalClassifier,
    batch: Split,
    choose: Callable[[Tensor, Split], tuple[Tensor, Tensor]],
) -> StepReport:
    """One step, three gradients.

    Args:
        sam: the optimizer of the model.
        model: what is trained.
        batch: B samples.
        choose: from the logits of the coalitions, (2^M - 1) x B x C, and the batch to the shares, shape (M,),
            and the index of the dominant modality, 0-dim.
    """
    passes: list[Tensor] = []  # loss of every modality's response, shape (M,)
    steer: list[Tensor] = []  # what `choose` returned in the first pass
    joint: list[Tensor] = []  # loss of the fused logits

    def closure() -> Tensor:
        sam.zero_grad()
        features = model.encode(batch.inputs)
        fused = model.fuse(features)
        logits = coalition_logits(model, batch.inputs, features, fused)
        of_each = responses(logits, model.modalities)
        losses = torch.stack([F.cross_entropy(z, batch.labels) for z in of_each])
        if not passes:
            steer.extend(choose(logits.detach(), batch))
            joint.append(F.cross_entropy(fused.detach(), batch.labels))
        passes.append(losses)
        loss = at(steer[0] * losses, steer[1])
        loss.backward(retain_graph=len(passes) == 1)
        return loss

    def rest() -> None:
        weighted = steer[0] * passes[0]
        (weighted.sum() - at(weighted, steer[1])).backward()

    sam.step(closure, rest=rest)
    return StepReport(joint[0], 3, *steer)
