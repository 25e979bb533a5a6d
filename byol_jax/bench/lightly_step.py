"""lightly's training step, after the BYOL example of its documentation (docs.lightly.ai, "examples/byol"). Needs torch and lightly.

Only modules of lightly that do without hydra are imported.
"""

from __future__ import annotations

import copy
from typing import Any

import jax
import lightly
import torch
import torchvision
from lightly.loss.negative_cosine_similarity import NegativeCosineSimilarity
from lightly.models.modules.heads import BYOLPredictionHead, BYOLProjectionHead
from lightly.models.utils import deactivate_requires_grad, get_weight_decay_parameters, update_momentum
from lightly.utils.lars import LARS
from torch import nn

from byol_jax.bench.result import cores
from byol_jax.config import ConfigError, Spec
from byol_jax.config.spec import EncoderSpec


def networks(spec: Spec) -> tuple[nn.Sequential, nn.Sequential]:
    """(online: backbone, projection head, prediction head; target: the first two again, without gradients). Both take [B, 3, S, S]."""
    base, features = backbone(spec.encoder)
    projector, predictor = spec.method.projector, spec.method.predictor
    projection = BYOLProjectionHead(features, projector.hidden, projector.out)
    online = nn.Sequential(base, projection, BYOLPredictionHead(projector.out, predictor.hidden, predictor.out))
    target = copy.deepcopy(online[:2])
    deactivate_requires_grad(target)
    return online, target


def backbone(chosen: EncoderSpec) -> tuple[nn.Module, int]:
    """(torchvision's ResNet without its classifier, how many features it gives)."""
    net = getattr(torchvision.models, chosen.name)(zero_init_residual=chosen.zero_init_last_bn)
    features = net.fc.in_features
    net.fc = nn.Identity()
    if chosen.stem == "small":
        net.conv1, net.maxpool = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False), nn.Identity()
    return net, features


def loss(online: Any, target: Any, view1: torch.Tensor, view2: torch.Tensor) -> torch.Tensor:
    """Half the sum of both negative mean cosines, between -1 and 1; ours is 4 + 4 times that."""
    criterion = NegativeCosineSimilarity()
    first, second = online(view1), online(view2)
    with torch.no_grad():
        goal1, goal2 = target(view1), target(view2)
    return 0.5 * (criterion(first, goal2) + criterion(second, goal1))


def optimizer(spec: Spec, online: nn.Sequential) -> torch.optim.Optimizer:
    """The configuration's, at its rate after the warm-up; biases and norms without weight decay, and with LARS without its scaling."""
    chosen = spec.optimizer
    decayed, free = get_weight_decay_parameters(online)
    groups: list[dict[str, Any]] = [{"params": decayed, "weight_decay": chosen.weight_decay}, {"params": free, "weight_decay": 0.0}]
    rate = chosen.learning_rate * spec.batch_size / 256
    if chosen.name == "adamw":
        return torch.optim.AdamW(groups, lr=rate)
    if chosen.name == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=chosen.momentum)
    return LARS(groups, lr=rate, momentum=chosen.momentum, trust_coefficient=chosen.trust_coefficient)


class Begun:
    """What the device was given until now."""

    def __init__(self, device: str) -> None:
        self._end = torch.cuda.Event() if device == "cuda" else None
        if self._end is not None:
            self._end.record()

    def block_until_ready(self) -> None:
        """Waits for that, and not for what was given later."""
        if self._end is not None:
            self._end.synchronize()


class Step:
    """A training step on two random views that lie on the device. A call begins one; ``jax.block_until_ready`` of what it returns ends it.

    Attributes:
      loss: of the latest step.
      note: what is measured, in words.
    """

    def __init__(self, spec: Spec) -> None:
        self.device, self.tau, self.low = device(), spec.method.tau, spec.encoder.dtype == "bfloat16"
        torch.set_num_threads(cores())
        if self.device == "cuda":  # as XLA does by itself: TF32 for float32, and the fastest of cuDNN's algorithms
            torch.set_float32_matmul_precision("high")
            torch.backends.cudnn.benchmark = True
        torch.manual_seed(spec.seed)
        how: dict[str, Any] = {"device": self.device, "memory_format": torch.channels_last}
        self.online, self.target = (net.to(**how) for net in networks(spec))
        self.views = [torch.randn(spec.batch_size, 3, spec.views.size, spec.views.size).to(**how) for _ in range(2)]
        self.optimizer = optimizer(spec, self.online)
        self.calls: list[Any] = [torch.compile(net) for net in (self.online, self.target)]
        compiled = self._begin()
        precision = "autocast to bfloat16" if self.low else "float32"
        form = f"{compiled}, channels_last, {precision}, {type(self.optimizer).__name__}"
        probe = ", and trains its linear probe along" if spec.method.probe else ""
        own = f"Its step has its views made beforehand; ours makes them inside{probe}."
        self.note = f"lightly {lightly.__version__}, torch {torch.__version__} on {self.device}: {form}. {own}"

    def _begin(self) -> str:
        """The first step, which compiles; where that cannot be done, this and later ones run as they are written. Says which."""
        try:
            self().block_until_ready()
        except Exception as error:  # a missing compiler has no error of its own; a fault of another kind comes again below
            self.calls = [self.online, self.target]
            self()
            return f"not compiled ({(str(error).strip() or type(error).__name__).splitlines()[0]})"
        return "compiled"

    def __call__(self) -> Begun:
        with torch.autocast(self.device, torch.bfloat16, enabled=self.low):
            value = loss(*self.calls, *self.views)
        self.optimizer.zero_grad()
        value.backward()
        self.optimizer.step()
        update_momentum(self.online[:2], self.target, m=self.tau)
        self.loss = value.detach()
        return Begun(self.device)


def device() -> str:
    """Torch's name of what JAX runs on. Raises ConfigError where lightly cannot run on the same."""
    backend, count = jax.default_backend(), jax.device_count()
    if backend == "cpu":
        return "cpu"
    if backend != "gpu" or count > 1:
        raise ConfigError([f"--peer lightly: JAX has {count} x {backend} here; lightly is measured on one GPU or on the CPU"])
    if not torch.cuda.is_available():
        raise ConfigError(
            [f"--peer lightly: JAX runs on a GPU, and torch {torch.__version__} sees none; JAX_PLATFORMS=cpu measures both there"]
        )
    return "cuda"
