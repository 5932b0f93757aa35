"""The two-layer MLP and its gated form (Shazeer 2020).

plain: hook_pre = x W_in + b_in,  hook_post = act(hook_pre)
gated: hook_pre = x W_gate + b_gate,  hook_pre_linear = x W_in + b_in,  hook_post = silu(hook_pre) * hook_pre_linear
output = hook_post W_out + b_out
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from workbench.blocks.attention import bias_of
from workbench.blocks.init import linear
from workbench.blocks.listen import Listener, hear

Act = Literal["gelu", "gelu_tanh", "quick_gelu", "swiglu", "relu"]
ACTS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "quick_gelu": lambda x: x * (1.702 * x).sigmoid(),
    "swiglu": functional.silu,
    "relu": functional.relu,
}
GATED = ("swiglu",)


class MLP(nn.Module):
    """``act`` chooses the non-linearity; ``swiglu`` is gated."""

    def __init__(self, d_model: int, d_mlp: int, *, act: Act, bias: bool) -> None:
        super().__init__()
        self.act = act
        self.inner = linear(d_model, d_mlp, bias)
        self.gate = linear(d_model, d_mlp, bias) if act in GATED else None
        self.out = linear(d_mlp, d_model, bias)

    def forward(self, x: Float[Tensor, "batch pos d_model"], listener: Listener | None = None) -> Float[Tensor, "batch pos d_model"]:
        """What the MLP says at each position."""
        act = ACTS[self.act]
        if self.gate is None:
            post = act(hear(listener, "hook_pre", self.inner(x)))
        else:
            pre = hear(listener, "hook_pre", self.gate(x))
            post = act(pre) * hear(listener, "hook_pre_linear", self.inner(x))
        return self.out(hear(listener, "hook_post", post))

    def weights(self) -> dict[str, Tensor]:
        """``W_in`` (and ``W_gate``) [d_model, d_mlp], ``W_out`` [d_mlp, d_model], and their biases (zeros where there is none)."""
        named = {"in": self.inner, "out": self.out} | ({"gate": self.gate} if self.gate is not None else {})
        return {f"W_{n}": layer.weight.T for n, layer in named.items()} | {f"b_{n}": bias_of(layer) for n, layer in named.items()}

    def sites(self) -> dict[str, tuple[str, ...]]:
        """Site names and axes in the order of a run."""
        names = ["hook_pre", "hook_pre_linear", "hook_post"] if self.gate is not None else ["hook_pre", "hook_post"]
        return dict.fromkeys(names, ("batch", "pos", "d_mlp"))
