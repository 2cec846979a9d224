"""The operations that layers are made of: stacked on any device, or network by network on a CPU.

Under `torch.compile` and on a GPU the layers are torch's own operations, which the compiler fuses.
In eager mode on an x86 CPU networks run one by one, with products by oneDNN where there is AVX-512
and else by torch's own, for three reasons (docs/performance.md):

* oneDNN uses AVX-512 on every CPU that has it. MKL, behind torch's matrix products, keeps to AVX2
  on AMD: 97 against 220 GFLOP/s on one core of an EPYC with AVX-512.
* It adds the bias and applies GELU while a product's output is in cache: 0.3 ns an element instead
  of 1.2.
* GELU and its derivative share one sigmoid, so the forward pass keeps the derivative and the
  backward pass needs only products.

Under autocast to bfloat16 the products between hidden layers are those of numbers rounded to
bfloat16, summed in float32 and rounded once more, on every processor. One without such products
computes them from the rounded numbers in float32, which gives the same values up to the order of
the sum but saves no time.
"""

import contextlib
import functools
import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import flop_registry, register_flop_formula

__all__ = [
    "LAYER_NORM_EPSILON",
    "Batched",
    "Kept",
    "OneDNN",
    "gelu_with_slope",
    "has_bfloat16_products",
    "onednn_suits",
    "prefers_onednn",
    "rounds_products",
    "without_autocast",
]

LAYER_NORM_EPSILON = 1e-6
# GELU in its tanh form is x sigmoid(u) with u = SLOPE (x + CUBIC x^3).
SLOPE, CUBIC = 2.0 * math.sqrt(2.0 / math.pi), 0.044715
_SMALL = 1024  # numbers in a kernel

Kept = tuple[Tensor, Tensor, Tensor]
"""Input, means and inverse standard deviations of a LayerNorm."""

# The operation behind torch.compile's linear layers; torch offers no public name for it. Its kernel
# is that of nn.Linear, (out, in), and its other arguments name what is fused to the product.
_product: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
_HAS_ONEDNN: bool = (
    _product is not None and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
)
if _HAS_ONEDNN and _product not in flop_registry:

    @register_flop_formula(_product)
    def _product_flops(x: Any, *others: Any, out_shape: Any, **named: Any) -> int:
        """What torch's own counter does not know."""
        return int(2 * math.prod(out_shape) * x[-1])


_layer_norm_backward = torch.ops.aten.native_layer_norm_backward


def onednn_suits(x: Tensor) -> bool:
    """Whether networks on ``x`` run one by one on oneDNN."""
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and _HAS_ONEDNN
        and not torch.compiler.is_compiling()
        and (not torch.is_autocast_enabled("cpu") or rounds_products("cpu"))
    )


def rounds_products(device_type: str) -> bool:
    """Whether products between hidden layers are to be those of bfloat16 numbers.

    That is so under autocast to bfloat16. Inputs, outputs, sums, parameters and all between the
    products stay in float32.
    """
    return (
        torch.amp.is_autocast_available(device_type)
        and torch.is_autocast_enabled(device_type)
        and torch.get_autocast_dtype(device_type) == torch.bfloat16
    )


def without_autocast(device_type: str) -> contextlib.AbstractContextManager[object]:
    """Torch's own casts off, where :func:`rounds_products` says what is rounded."""
    if not rounds_products(device_type):
        return contextlib.nullcontext()
    return torch.autocast(device_type, enabled=False)


def has_bfloat16_products() -> bool:
    """Whether the CPU has products of bfloat16 numbers, so that rounding saves time.

    With oneDNN that takes AVX-512 or a later instruction set; ``ONEDNN_MAX_CPU_ISA`` limits it.
    """
    return _tries_bfloat16()


# All that `torch.compiler.assume_constant_result` does, but that imports the compiler: seconds.
vars(has_bfloat16_products)["_dynamo_marked_constant"] = True


@functools.cache
def _tries_bfloat16() -> bool:
    # torch knows the processor, not the instruction set that oneDNN is limited to.
    if not _HAS_ONEDNN or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    ones = torch.ones(16, 16, dtype=torch.bfloat16)
    try:
        _product(ones, ones, None, "none", [], "")
    except RuntimeError:  # "could not create a primitive descriptor"
        return False
    return True


def prefers_onednn(size: int) -> bool:
    """Whether float32 products are oneDNN's and not torch's own, which are MKL's.

    oneDNN's are faster with AVX-512. On an AMD EPYC with AVX2 it takes 144 us, torch's 91, for
    rows (128, 128) and a kernel (128, 128), and 223 and 98 for the gradient of the kernel, which
    oneDNN has to transpose first. Small kernels stay with oneDNN, which rounds alike with both
    instruction sets, so that the loss traces stored of small networks hold on any CPU.

    Args:
        size: numbers in the kernel.
    """
    return size < _SMALL or _capability().startswith("AVX512")


@functools.cache
def _capability() -> str:
    return str(torch.backends.cpu.get_cpu_capability())


class Batched:
    """Stacks of networks, kernels ``(G, in, out)`` and rows ``(G, B, in)``, on any device."""

    @staticmethod
    def affine(x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
        """``x kernel + bias``."""
        if kernel.dtype == torch.bfloat16:
            return _rounded_bmm(x, kernel) + bias
        return torch.baddbmm(bias, x, kernel)

    @staticmethod
    def pull(gradient: Tensor, kernel: Tensor, factor: Tensor | None) -> Tensor:
        """``gradient kernel^T``, times ``factor`` element by element."""
        rounds = kernel.dtype == torch.bfloat16
        pulled = (_rounded_bmm if rounds else torch.bmm)(gradient, kernel.mT)
        return pulled if factor is None else pulled * factor

    @staticmethod
    def norm(x: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """LayerNorm of ``x`` with its means and inverse standard deviations."""
        # torch's LayerNorm takes one scale and shift, not one for each of the stacked networks.
        normed, *kept = torch.native_layer_norm(x, x.shape[-1:], None, None, LAYER_NORM_EPSILON)
        return torch.addcmul(shift, normed, scale), kept[0], kept[1]

    @staticmethod
    def pull_norm(gradient: Tensor, kept: Kept, scale: Tensor) -> tuple[Tensor, ...]:
        """Gradients of LayerNorm's input and, for a single network, of scale and shift."""
        hidden, mean, scatter = kept
        arguments = (hidden, hidden.shape[-1:], mean, scatter, None, None, [True, False, False])
        pulled: tuple[Tensor, ...] = _layer_norm_backward(gradient * scale, *arguments)
        return pulled


class OneDNN(Batched):
    """As :class:`Batched` for one network, kernels ``(in, out)``, rows ``(B, in)``, on a CPU.

    A product is computed in the precision of its kernel, float32 or bfloat16.
    """

    @staticmethod
    def affine(x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
        return _linear(x, kernel.t(), bias).float()

    @staticmethod
    def affine_gelu(x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
        """GELU of ``x kernel + bias``, in the kernel's precision."""
        return _linear(x, kernel.t(), bias, "gelu", "tanh")

    @staticmethod
    def pull(gradient: Tensor, kernel: Tensor, factor: Tensor | None) -> Tensor:
        pulled = _linear(gradient, kernel, None).float()
        # oneDNN could multiply as well, but with the factor not in cache that takes longer.
        return pulled if factor is None else pulled.mul_(factor)

    @staticmethod
    def kernel_gradient(x: Tensor, gradient: Tensor) -> Tensor:
        """``x^T gradient``, in the precision of ``x``."""
        if x.dtype == torch.bfloat16 and has_bfloat16_products():
            # torch's product is oneDNN's, and needs no transposed copy.
            return torch.mm(x.t(), gradient.bfloat16()).float()
        return _linear(x.t(), gradient.to(x.dtype).t(), None).float()

    @staticmethod
    def norm(x: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        normed, *kept = torch.native_layer_norm(x, x.shape[-1:], scale, shift, LAYER_NORM_EPSILON)
        return normed, kept[0], kept[1]

    @staticmethod
    def pull_norm(gradient: Tensor, kept: Kept, scale: Tensor) -> tuple[Tensor, ...]:
        hidden, mean, scatter = kept
        arguments = (hidden, hidden.shape[-1:], mean, scatter, scale, scale, [True, True, True])
        pulled: tuple[Tensor, ...] = _layer_norm_backward(gradient, *arguments)
        return pulled


def gelu_with_slope(x: Tensor) -> tuple[Tensor, Tensor]:
    """GELU in its tanh form and its derivative; overwrites ``x``.

    With ``s = sigmoid(u)``: value ``x s``, derivative ``s + x s (1 - s) du/dx``.
    """
    square = x * x
    s = torch.addcmul(x, x, square, value=CUBIC).mul_(SLOPE).sigmoid_()
    value = x.mul_(s)
    rest = torch.addcmul(value, value, s, value=-1.0)
    slope = s.addcmul_(rest, square, value=3.0 * CUBIC * SLOPE).add_(rest, alpha=SLOPE)
    return value, slope


def _linear(
    x: Tensor, kernel: Tensor, bias: Tensor | None, activation: str = "none", form: str = ""
) -> Tensor:
    """An activation of ``x kernel^T + bias`` in the kernel's precision."""
    rows = x.to(kernel.dtype)
    if kernel.dtype == torch.bfloat16 and not has_bfloat16_products():
        return _linear(rows.float(), kernel.float(), bias, activation, form).bfloat16()
    if kernel.dtype == torch.bfloat16 or prefers_onednn(kernel.numel()):
        fused: Tensor = _product(rows.contiguous(), kernel, bias, activation, [], form)
        return fused
    with without_autocast("cpu"):
        columns = kernel.t()
        product = torch.mm(rows, columns) if bias is None else torch.addmm(bias, rows, columns)
    return product if activation == "none" else functional.gelu(product, approximate=form)


def _rounded_bmm(x: Tensor, kernel: Tensor) -> Tensor:
    """``x kernel`` of numbers rounded to bfloat16, by torch's operations."""
    rows = x.bfloat16()
    if x.device.type == "cpu" and not has_bfloat16_products():
        return torch.bmm(rows.float(), kernel.float()).bfloat16().float()
    return torch.bmm(rows, kernel).float()
