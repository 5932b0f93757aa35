"""Differences in place of slopes: gradients of a pass in which every nonlinear operation says what it did between two inputs.

Rows stand in two halves, the inputs and as many references. A linear operation hands gradients on as it always does, another one

    y = f(u), element by element        (y1 - y0) / (u1 - u0)                           rescale
    y = a b (products of any kind)      (b1 + b0) / 2 to a, (a1 + a0) / 2 to b          each input's share over both orders

and norms, softmax and attention are taken apart into these. Then the gradients times the differences of the inputs add up to the
difference of the answer, whatever lies between (summation to delta). Values stay what they are. An operation without a rule is refused
by its name.

Sources: Shrikumar, Greenside and Kundaje, ICML 2017 (arXiv:1704.02685), the rescale rule; Lundberg and Lee, NeurIPS 2017
(arXiv:1705.07874), Deep SHAP, products by Shapley values of their two inputs.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from workbench.core.errors import Incompatible


def _names(words: str) -> frozenset[str]:
    return frozenset(words.split())


STRUCTURE = _names("""
    __get__ __getitem__ __setitem__ T view view_as reshape transpose permute swapaxes movedim flatten unflatten expand expand_as cat concat
    stack split chunk unbind narrow select index_select gather take_along_dim to float double half bfloat16 type_as contiguous clone
    masked_fill masked_fill_ pad repeat repeat_interleave tile unsqueeze squeeze roll flip index_add index_add_ index_copy index_copy_
    index_put index_put_ copy_ scatter scatter_add detach requires_grad_ cpu cuda where sum mean cumsum diff neg negative positive __neg__
    add add_ __add__ __radd__ __iadd__ sub sub_ __sub__ __rsub__ __isub__ rsub avg_pool1d avg_pool2d broadcast_tensors broadcast_to
    new_zeros zeros_like ones_like empty_like full_like dropout
""")
"""Linear in what depends on the input, or no function of its values at all."""
ELEMENTWISE = _names("""
    relu gelu silu sigmoid tanh exp log log1p sqrt rsqrt square pow __pow__ reciprocal erf softplus sin cos elu leaky_relu logsigmoid
""")
PRODUCTS = _names("mul multiply mul_ __mul__ __rmul__ matmul bmm mm __matmul__ einsum linear conv1d conv2d")
QUOTIENTS = _names("div divide true_divide __truediv__")
PASSED = _names("grad backward is_floating_point isfinite isnan size dim numel item tolist numpy")


class Differences(TorchFunctionMode):
    """While this is entered, gradients to what ``requires_grad_`` was called on carry differences. ``met`` counts the rules used."""

    def __init__(self, asked: str) -> None:
        super().__init__()
        self.asked, self.met = asked, Counter[str]()
        self._moved = WeakIdKeyDictionary()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given, name = kwargs or {}, func.__name__
        if name == "requires_grad_":
            return self._mark(func(*args, **given))
        moved = [one for one in _tensors((args, given)) if one in self._moved]
        if not moved or name in PASSED:
            return func(*args, **given)
        found = self._rule(func, name, args, given, moved)
        if name == "__setitem__":
            self._mark(args[0])
        return self._mark(found)

    def _mark(self, found: Any) -> Any:
        for one in _tensors(found):
            if one.requires_grad:
                self._moved[one] = True
        return found

    def _rule(self, func: Any, name: str, args: Any, given: Any, moved: Sequence[Tensor]) -> Any:
        if name in STRUCTURE:
            return func(*args, **given)
        if name in PRODUCTS and len(moved) == 1:
            return func(*args, **given)
        if name in PRODUCTS and len(moved) == 2 and name != "mul_":
            return self._count("product", product(func, args, given, moved))
        if name in QUOTIENTS:
            return self._quotient(*args, **given)
        if name in ELEMENTWISE and len(moved) == 1 and args[0] is moved[0]:
            return self._count(name.strip("_"), rescaled(lambda u: func(u, *args[1:], **given), args[0]))
        if name in TAKEN_APART:
            return self._count(name, TAKEN_APART[name](*args, **given))
        found = func(*args, **given)
        if any(one.requires_grad for one in _tensors(found)):
            what = "two arguments that both depend on the input" if name in ELEMENTWISE else "no rule"
            raise Incompatible(self.asked, "this model", [f"the operation '{name}' has {what}, so its part of the answer would be lost"],
                               do="Ask integrated-gradients, which needs no rules.")  # fmt: skip
        return found

    def _quotient(self, a: Any, b: Any, **given: Any) -> Any:
        if given:
            raise Incompatible(self.asked, "this model", ["a division that rounds has no rule"])
        if not (isinstance(b, Tensor) and b in self._moved):
            return a / b
        inverse = self._count("reciprocal", rescaled(torch.reciprocal, b))
        if not (isinstance(a, Tensor) and a in self._moved):
            return a * inverse
        return self._count("product", product(torch.mul, (a, inverse), {}, (a, inverse)))

    def _count(self, rule: str, found: Any) -> Any:
        self.met[rule] += 1
        return found


def _tensors(held: Any) -> list[Tensor]:
    """Every tensor among arguments or results."""
    if isinstance(held, Tensor):
        return [held]
    if isinstance(held, dict):
        held = list(held.values())
    return [one for part in held for one in _tensors(part)] if isinstance(held, list | tuple) else []


def halves(u: Tensor) -> tuple[Tensor, Tensor]:
    """The inputs' rows and the references'."""
    first, second = u.detach().chunk(2)
    return first, second


def both(one: Tensor) -> Tensor:
    """The same for inputs and references."""
    return torch.cat([one, one])


def carried(value: Tensor, way: Tensor) -> Tensor:
    """``value`` with the gradients of ``way``."""
    return value.detach() + (way - way.detach())


def rescaled(f: Callable[[Tensor], Tensor], u: Tensor) -> Tensor:
    """f(u) element by element, with the slope between input and reference. What is masked (-inf) moves nothing."""
    value, masked = f(u.detach()), torch.isneginf(u.detach())
    slope = both(slope_of(f, halves(u), halves(value))).masked_fill(masked, 0.0)
    return carried(value, slope * u.masked_fill(masked, 0.0))


def slope_of(f: Callable[[Tensor], Tensor], u: tuple[Tensor, Tensor], y: tuple[Tensor, Tensor]) -> Tensor:
    """(y1 - y0) / (u1 - u0) with y = f(u), or f's slope half way where the two agree to what rounding leaves of the first."""
    middle = ((u[0] + u[1]) / 2).requires_grad_(True)
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(f(middle).sum(), middle)
    change = u[0] - u[1]
    safe = torch.where(change == 0, 1.0, change)
    quotient = (y[0] - y[1]) / safe
    rounding = 4 * torch.finfo(change.dtype).eps * (y[0].abs() + y[1].abs()) / safe.abs()
    return torch.where((change == 0) | ((quotient - slope).abs() <= rounding), slope, quotient)


def product(func: Callable[..., Any], args: Sequence[Any], given: dict[str, Any], moved: Sequence[Tensor]) -> Tensor:
    """A bilinear function of the two ``moved`` arguments, each with the other at the mean of input and reference."""
    first, second = moved
    value = func(*(_still(held) for held in args), **{name: _still(held) for name, held in given.items()})
    one = _with(func, args, given, moved, (first, mean_of(second)))
    return carried(value, one + _with(func, args, given, moved, (mean_of(first), second)))


def mean_of(u: Tensor) -> Tensor:
    first, second = halves(u)
    return both((first + second) / 2)


def _still(held: Any) -> Any:
    if isinstance(held, Tensor):
        return held.detach()
    return type(held)(_still(one) for one in held) if isinstance(held, list | tuple) else held


def _with(func: Callable[..., Any], args: Sequence[Any], given: dict[str, Any], moved: Sequence[Tensor], put: Sequence[Tensor]) -> Tensor:
    """The function with ``put`` in place of the ``moved`` arguments, in their order; what else it is given stands still."""
    waiting = iter(put)

    def placed(held: Any) -> Any:
        if isinstance(held, Tensor):
            return next(waiting) if any(held is one for one in moved) else held.detach()
        return type(held)(placed(one) for one in held) if isinstance(held, list | tuple) else held

    return func(*(placed(one) for one in args), **{name: placed(one) for name, one in given.items()})


# --- what is taken apart --------------------------------------------------------------------------------------


def softmax(u: Tensor, dim: int = -1, *rest: Any, dtype: torch.dtype | None = None, **_: Any) -> Tensor:
    """The exponential of ``log_softmax``. What is masked stays 0, also where everything is."""
    return rescaled(torch.exp, log_softmax(u, dim, dtype=dtype))


def log_softmax(u: Tensor, dim: int = -1, *rest: Any, dtype: torch.dtype | None = None, **_: Any) -> Tensor:
    """u minus its log-sum-exp."""
    u = u if dtype is None else u.to(dtype)
    return u - logsumexp(u, dim, keepdim=True)


def logsumexp(u: Tensor, dim: Any = -1, keepdim: bool = False) -> Tensor:
    """L = log S, S = sum of exp(u), by the rule of exp, the sum and the rule of log in one:

        dL/du_i  becomes  (exp(u1_i) - exp(u0_i)) / (u1_i - u0_i)  *  (L1 - L0) / (S1 - S0)

    in units of the larger sum, so that neither side overflows and the smaller may vanish. Of nothing but masked entries L is 0.
    """
    value = torch.logsumexp(u.detach(), dim, keepdim=True)
    value = value.masked_fill(torch.isneginf(value), 0.0)
    masked = torch.isneginf(u.detach())
    (one, other), (l1, l0) = halves(u), halves(value)
    unit = torch.maximum(l1, l0)
    at = one - unit, other - unit
    weights = slope_of(torch.exp, at, (at[0].exp(), at[1].exp()))
    whole = slope_of(torch.exp, (l1 - unit, l0 - unit), ((l1 - unit).exp(), (l0 - unit).exp()))
    way = (both(weights / whole).masked_fill(masked, 0.0) * u.masked_fill(masked, 0.0)).sum(dim, keepdim=True)
    found = carried(value, way)
    return found if keepdim else found.squeeze(dim)


def layer_norm(x: Tensor, shape: Sequence[int], weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    axes = tuple(range(-len(shape), 0))
    return _normed(x - x.mean(axes, keepdim=True), axes, weight, bias, eps)


def rms_norm(x: Tensor, shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None) -> Tensor:
    return _normed(x, tuple(range(-len(shape), 0)), weight, None, torch.finfo(x.dtype).eps if eps is None else eps)


def _normed(centred: Tensor, axes: tuple[int, ...], weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    scale = rescaled(torch.rsqrt, rescaled(torch.square, centred).mean(axes, keepdim=True) + eps)
    out = _product(centred, scale)
    out = out if weight is None else out * weight
    return out if bias is None else out + bias


def normalize(x: Tensor, p: float = 2.0, dim: int = -1, eps: float = 1e-12, out: None = None) -> Tensor:
    if p != 2.0:
        raise Incompatible("deep-lift", "this model", [f"the operation 'normalize' with p={p:g} has no rule"])
    length = rescaled(torch.sqrt, rescaled(torch.square, x).sum(dim, keepdim=True))
    return _product(x, rescaled(lambda u: u.clamp_min(eps).reciprocal(), length))


def attention(
    q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0, is_causal: bool = False,
    scale: float | None = None, enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    """Scaled dot-product attention."""
    moved = [one.requires_grad for one in (q, k, v)]
    scores = _either(q * (1 / math.sqrt(q.shape[-1]) if scale is None else scale), k.transpose(-2, -1), moved[0], moved[1])
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
    if moved[0] or moved[1]:
        return _either(softmax(scores), v, True, moved[2])
    return torch.matmul(scores.softmax(-1), v)


def _either(a: Tensor, b: Tensor, a_moves: bool, b_moves: bool) -> Tensor:
    return product(torch.matmul, (a, b), {}, (a, b)) if a_moves and b_moves else torch.matmul(a, b)


def _product(a: Tensor, b: Tensor) -> Tensor:
    return product(torch.mul, (a, b), {}, (a, b))


TAKEN_APART: dict[str, Callable[..., Tensor]] = {
    "softmax": softmax,
    "log_softmax": log_softmax,
    "logsumexp": logsumexp,
    "layer_norm": layer_norm,
    "rms_norm": rms_norm,
    "normalize": normalize,
    "scaled_dot_product_attention": attention,
}
