"""Numeric precision, and the one matrix product that everything goes through."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Literal, cast

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Float, Float32

from ioa_jax.errors import InputError

_FEW_ROWS = 32  # of a product, as in decoding; measured on two cores with AMX

PrecisionName = Literal["float32", "bfloat16"]


@dataclasses.dataclass(frozen=True)
class Precision:
    """Which dtype products and activations use. Accumulation, norms, softmax and losses: float32.

    Attributes:
        operand: Dtype of both operands of every matrix product, forward and backward.
        activation: Dtype of the residual stream and of the key/value cache.
        on_cpu: Arrange the arithmetic for XLA's CPU backend, which gains from casts apart from the
            loops around them and from attention row by row (in cache), where accelerators want one
            large fused operation.
    """

    operand: Any
    activation: Any
    on_cpu: bool

    @classmethod
    def named(cls, name: str, platform: str | None = None) -> Precision:
        """The precision behind a `--precision` option.

        Args:
            name: `float32` or `bfloat16`.
            platform: JAX platform; None asks JAX for its default backend.

        Raises:
            InputError: `name` is neither.
        """
        on_cpu = (platform or jax.default_backend()) == "cpu"
        float32, bfloat16 = jnp.dtype(jnp.float32), jnp.dtype(jnp.bfloat16)
        if name == "float32":
            return cls(float32, float32, on_cpu)
        if name == "bfloat16":
            # CPUs have bf16 products (AMX, AVX-512) but no bf16 elementwise arithmetic: it is
            # emulated and slower than float32. Accelerators gain memory and bandwidth instead.
            return cls(bfloat16, float32 if on_cpu else bfloat16, on_cpu)
        raise InputError(f"precision {name!r} is unknown; choose float32 or bfloat16")


def cast_operand(x: Float[Array, "*X"], precision: Precision) -> Float[Array, "*X"]:
    """x in the operand dtype."""
    if x.dtype == precision.operand:
        return x
    if precision.on_cpu:
        # XLA's CPU backend would fuse the emulated cast into x's producer, which then no longer
        # vectorises (and is computed again for each consumer).
        x = jax.lax.optimization_barrier(x)
    return x.astype(precision.operand)


def einsum(
    spec: str, a: Float[Array, "*A"], b: Float[Array, "*B"], precision: Precision
) -> Float32[Array, "*C"]:
    """Two-operand einsum with operands cast to `precision.operand` and a float32 result.

    The gradient casts the cotangent too. Plain autodiff would multiply a float32 cotangent with a
    bf16 operand, which falls off the fast path of every backend.

    Args:
        spec: `"ab,bc->ac"` with explicit indices; every index of an operand occurs in the other
            operand or in the result.
        a: First operand.
        b: Second operand.
        precision: What the operands are cast to.
    """
    return cast(Array, _einsum(spec, a, b, precision))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 3))
def _einsum(
    spec: str, a: Float[Array, "*A"], b: Float[Array, "*B"], precision: Precision
) -> Float32[Array, "*C"]:
    return product(spec, cast_operand(a, precision), cast_operand(b, precision), precision)


def product(
    spec: str, a: Float[Array, "*A"], b: Float[Array, "*B"], precision: Precision
) -> Float32[Array, "*C"]:
    """`einsum` of operands that are already cast, with the gradient of plain autodiff."""
    if precision.on_cpu:
        inputs, out = spec.split("->")
        a_spec, b_spec = inputs.split(",")
        batch = [i for i in a_spec if i in b_spec and i in out]
        contracted = [i for i in a_spec if i in b_spec and i not in out]
        wanted = "".join([*batch, *(i for i in a_spec if i not in b_spec), *contracted])
        if wanted != a_spec:
            # XLA would turn this transpose into a layout of the operand, and a product whose left
            # operand is contracted along its major axis (every weight gradient) runs at a quarter
            # of the speed of copying the operand first.
            a = with_layout_constraint(
                a.transpose([a_spec.index(i) for i in wanted]),
                Layout(major_to_minor=tuple(range(a.ndim))),
            )
            spec = f"{wanted},{b_spec}->{out}"
    return jnp.einsum(
        spec,
        a,
        b,
        # By default TPUs multiply float32 in bf16 and GPUs in TF32.
        precision=jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else None,
        # Sums of bf16 products in bf16 would lose most of their digits.
        preferred_element_type=jnp.float32,
    )


# Both operands as they were multiplied, and two empty arrays: these carry the dtypes that the
# gradients have to come back in.
_Residuals = tuple[Float[Array, "*A"], Float[Array, "*B"], Float[Array, " 0"], Float[Array, " 0"]]


def _einsum_forward(
    spec: str, a: Float[Array, "*A"], b: Float[Array, "*B"], precision: Precision
) -> tuple[Float32[Array, "*C"], _Residuals]:
    a_cast, b_cast = cast_operand(a, precision), cast_operand(b, precision)
    return product(spec, a_cast, b_cast, precision), (
        a_cast,
        b_cast,
        jnp.zeros((0,), a.dtype),
        jnp.zeros((0,), b.dtype),
    )


def _einsum_backward(
    spec: str,
    precision: Precision,
    residuals: _Residuals,
    cotangent: Float32[Array, "*C"],
) -> tuple[Float[Array, "*A"], Float[Array, "*B"]]:
    a, b, a_like, b_like = residuals
    inputs, out = spec.split("->")
    a_spec, b_spec = inputs.split(",")
    # Index letters say what each gradient sums over: those of the result that it lacks.
    g = cast_operand(cotangent, precision)
    grad_a = product(f"{out},{b_spec}->{a_spec}", g, b, precision)
    grad_b = product(f"{out},{a_spec}->{b_spec}", g, a, precision)
    return grad_a.astype(a_like.dtype), grad_b.astype(b_like.dtype)


_einsum.defvjp(_einsum_forward, _einsum_backward)


def linear(
    x: Float[Array, "*N I"], weight: Float[Array, "*O I"], precision: Precision
) -> Float32[Array, "*N_and_O"]:
    """`x @ weight.T` over the last axis of both: [*N, I] and [*O, I] give [*N, *O].

    Args:
        x: Any number of leading axes.
        weight: Any number of output axes.
        precision: Dtype of the operands.
    """
    rows = x.reshape(-1, x.shape[-1])
    matrix = weight.reshape(-1, weight.shape[-1])
    if precision.on_cpu and rows.shape[0] <= _FEW_ROWS:
        # Bound by reading the weights: as the left operand they are streamed, as the right one they
        # would be packed first. The constraint keeps XLA from turning the product around again.
        product = einsum("oi,mi->om", matrix, rows, precision)
        flat = with_layout_constraint(product, Layout(major_to_minor=(0, 1))).T
    else:
        flat = einsum("mi,oi->mo", rows, matrix, precision)
    return flat.reshape(*x.shape[:-1], *weight.shape[:-1])
