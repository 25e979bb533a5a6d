"""All that a run carries from one step to the next."""

from __future__ import annotations

from typing import Any

import jax
import optax
from flax import struct


@struct.dataclass
class ByolState:
    """A pytree.

    Attributes:
      step: number of steps done, int32[].
      online: variables of the online network, {"params", "batch_stats"}; batch_stats is {} for a network without BN.
      target: the same of the target network. Its params follow the online ones, its batch_stats are its own. {} where the method has none.
      opt_state: of one optimizer over {"online": params, "probe": probe}.
      probe: params of the online linear probe; {} if there is none.
    """

    step: jax.Array
    online: dict[str, Any]
    target: dict[str, Any]
    opt_state: optax.OptState
    probe: dict[str, Any]

    @property
    def trained(self) -> dict[str, Any]:
        """What the optimizer moves."""
        return {"online": self.online["params"], "probe": self.probe}
