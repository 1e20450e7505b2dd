"""Every primitive of `jax.extend.core.primitives` in a small call, jitted by jax and by `optimize`.

Inputs are constrained before a call and its results after it, so that layouts change on both sides.
By hand, a failure names its primitive: `XLA_FLAGS=--xla_force_host_platform_device_count=8 python
-m tests.jax.primitives [NAME ...]`.
"""

from __future__ import annotations

import inspect
import sys
import traceback
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import jax
import jax.ad_checkpoint
import jax.numpy as jnp
import numpy as np
from jax.extend.core import primitives
from jax.sharding import Mesh, NamedSharding

from redistrib.backends import jax as rjax
from redistrib.backends.jax.jaxprs import equations_in
from redistrib.types.tile import same_bits

MESH = Mesh(np.array(jax.devices()[:8]).reshape(2, 4), ("data", "model"))
Call = Callable[..., Any]
lax: Any = jax.lax  # typed in parts only, as the two below
P: Any = jax.sharding.PartitionSpec
checkpoint_name: Any = jax.ad_checkpoint.checkpoint_name


def _numbers(seed: int) -> Any:
    """Multiples of 1/8 between -1 and 1, whose sums are exact in any order."""
    return (np.random.default_rng(seed).integers(-8, 9, (8, 8)) / 8).astype(np.float32)


INPUTS = {
    "x": _numbers(0),
    "y": _numbers(1),
    "n": np.random.default_rng(2).integers(0, 8, (8, 8)).astype(np.int32),
    "m": np.random.default_rng(3).integers(1, 5, (8, 8)).astype(np.int32),
    "u": np.random.default_rng(4).integers(0, 1 << 32, (8, 8)).astype(np.uint32),
}
"""What calls take, by the names of their arguments: floats, integers, bits."""


def _of_one(names: str, of: Call = lambda f: lambda x: f(x)) -> dict[str, Call]:  # noqa: PLW0108
    """Calls of functions of jax.lax with one input, or what `of` makes of these functions."""
    return {name: of(getattr(lax, name)) for name in names.split()}


def _of_two(names: str, of: Call = lambda f: lambda x, y: f(x, y)) -> dict[str, Call]:  # noqa: PLW0108
    """As `_of_one`, with two inputs."""
    return {name: of(getattr(lax, name)) for name in names.split()}


def _bound(name: str) -> Call:
    """A primitive that no public function is for, as it is."""
    return lambda x, y: getattr(primitives, f"{name}_p").bind(x, y)


def _tiles(function: Call) -> Call:
    """A function of tiles, split by rows over `data`."""
    mapped: Call = jax.shard_map(
        function, mesh=MESH, in_specs=P("data"), out_specs=P("data"), check_vma=False
    )
    return mapped


def _window(x: Any, combine: Any = lax.add, start: float = 0.0) -> Any:
    return lax.reduce_window(x, start, combine, (2, 2), (2, 2), "VALID")


_relu_vjp: Any = jax.custom_vjp(lambda x: jnp.maximum(x, 0))
_relu_vjp.defvjp(lambda x: (_relu_vjp(x), x), lambda x, ct: (jnp.where(x > 0, ct, 0),))


def _solved(x: Any) -> Any:
    square = x @ x.T + 16 * jnp.eye(8)
    return lax.custom_linear_solve(
        lambda v: square @ v, x, lambda _, b: b / 16, lambda _, b: b / 16
    )


def _counted(x: Any) -> Any:
    ref: Any = jax.new_ref(jnp.zeros((8, 8), x.dtype))
    ref[...] = x
    ref[...] += x
    return ref[...]


def _in_order(x: Any, y: Any) -> Any:
    token = lax.after_all(lax.create_token())
    del token
    return x + y


NEWER: dict[str, Call] = {
    "log2": lambda x: lax.log2(abs(x) + 0.5),
    "one_minus_square": lambda x: lax.one_minus_square(x / 2),
    "polynomial": lambda x, y: lax.polynomial(x, (y, 2.0, y)),
}
"""Those that only the newer of the supported versions of jax have."""
CALLS: dict[str, Call] = {
    **{name: call for name, call in NEWER.items() if hasattr(lax, name)},
    **_of_one(
        "abs asinh atan bessel_i0e bessel_i1e cbrt ceil cos cosh cumlogsumexp cummax cummin cumprod"
        " cumsum erf erfc exp exp2 expm1 floor is_finite logistic neg round sign sin sinh square"
        " stop_gradient tan tanh lgamma"
    ),
    **_of_one("digamma log log1p rsqrt sqrt", lambda f: lambda x: f(abs(x) + 0.5)),
    **_of_one("acos asin atanh erf_inv", lambda f: lambda x: f(x / 2)),
    **_of_one("acosh", lambda f: lambda x: f(abs(x) + 1.5)),
    **_of_one("clz population_count bitwise_not", lambda f: lambda n: f(n)),  # noqa: PLW0108
    **_of_two("conj imag real", lambda f: lambda x, y: f(lax.complex(x, y))),
    **_of_two("add atan2 complex div eq ge gt le lt max min mul ne nextafter sub"),
    **_of_two(
        "igamma igammac igamma_grad_a pow rem zeta",
        lambda f: lambda x, y: f(abs(x) + 1.5, abs(y) + 0.5),
    ),
    **_of_two(
        "bitwise_and bitwise_or bitwise_xor shift_left shift_right_arithmetic shift_right_logical",
        lambda f: lambda n, m: f(n, m),  # noqa: PLW0108
    ),
    **{name: _bound(name) for name in ("eq_to", "le_to", "lt_to")},
    "add_jaxvals": jax.grad(lambda x: (jnp.sin(x) * jnp.cos(x)).sum()),
    "all_gather": _tiles(lambda x: lax.all_gather(x, "data").sum(0)),
    "all_to_all": _tiles(lambda x: lax.all_to_all(x, "data", 1, 1, tiled=True)),
    "axis_index": _tiles(lambda x: x + lax.axis_index("data")),
    "pmax": _tiles(lambda x: lax.pmax(x, "data")),
    "pmin": _tiles(lambda x: lax.pmin(x, "data")),
    "ppermute": _tiles(lambda x: lax.ppermute(x, "data", [(0, 1), (1, 0)])),
    "psum": _tiles(lambda x: lax.psum(x, "data")),
    "approx_top_k": lambda x: lax.approx_max_k(x, 4),
    "argmax": lambda x: lax.argmax(x, 0, np.int32),
    "argmin": lambda x: lax.argmin(x, 0, np.int32),
    "bitcast_convert_type": lambda x: lax.bitcast_convert_type(x, np.uint32),
    "broadcast_in_dim": lambda x: lax.broadcast_in_dim(x, (8, 8, 2), (0, 1)),
    "cholesky": lambda x: lax.linalg.cholesky(x @ x.T + 16 * jnp.eye(8)),
    "clamp": lambda x, y: lax.clamp(-0.5, x + y, 0.5),
    "concatenate": lambda x, y: lax.concatenate([x, y], 0),
    "cond": lambda x: lax.cond(x[0, 0] > 0, lambda x: x + 1, lambda x: x - 1, x),
    "conv_general_dilated": lambda x, y: lax.conv(
        x.reshape(2, 4, 8), y.reshape(8, 4, 2), (1,), "SAME"
    ),
    "convert_element_type": lambda x: x.astype(jnp.bfloat16),
    "copy": lambda x: jnp.array(x, copy=True),
    "create_token": _in_order,
    "custom_jvp_call": jax.nn.relu,
    "custom_vjp_call": _relu_vjp,
    "device_put": lambda x: jax.device_put(x, NamedSharding(MESH, P(None, "data"))),
    "dot_general": lambda x, y: x @ y,
    "dynamic_slice": lambda x, n: lax.dynamic_slice(x, (n[0, 0] % 4, 0), (4, 8)),
    "dynamic_update_slice": lambda x, y, n: lax.dynamic_update_slice(x, y[:4], (n[0, 0] % 4, 0)),
    "eigh": lambda x: lax.linalg.eigh(x + x.T)[1],
    "eig": lambda x: lax.linalg.eig(x, compute_left_eigenvectors=False)[0],
    "fft": lambda x: jnp.fft.fft(x, axis=0),
    "gather": lambda x, n: x[n[0]],
    "get": _counted,
    "hessenberg": lambda x: lax.linalg.hessenberg(x)[0],
    "householder_product": lambda x: lax.linalg.householder_product(*jnp.linalg.qr(x, "raw")),
    "integer_pow": lambda x: x**3,
    "iota": lambda x: x + lax.broadcasted_iota(np.float32, (8, 8), 0),
    "jit": jax.jit(jnp.sin),
    "linear_solve": _solved,
    "lu": lambda x: lax.linalg.lu(x)[0],
    "name": lambda x: checkpoint_name(x, "named"),
    "pad": lambda x: lax.pad(x, np.float32(1), ((4, 4, 0), (0, 0, 0))),
    "polygamma": lambda x: lax.polygamma(jnp.ones_like(x), abs(x) + 0.5),
    "qr": lambda x: lax.linalg.qr(x)[0],
    "random_bits": lambda x: x + jax.random.uniform(jax.random.key(1), (8, 8)),
    "random_fold_in": lambda n: jax.random.key_data(jax.random.fold_in(jax.random.key(2), n[0, 0])),
    "random_gamma": lambda x: jax.random.gamma(jax.random.key(3), abs(x) + 1),
    "random_split": lambda n: jax.random.key_data(
        jax.random.split(jax.random.key(jnp.abs(n[0, 0])), 8)
    ),
    "reduce_and": lambda n: jnp.all(n > 2, 0),
    "reduce_max": lambda x: x.max(0),
    "reduce_min": lambda x: x.min(1),
    "reduce_or": lambda n: jnp.any(n > 6, 0),
    "reduce_prod": lambda x: jnp.sign(x).prod(0),
    "reduce_sum": lambda x: x.sum(0),
    "reduce_xor": lambda u: lax.reduce_xor(u, (1,)),
    "reduce": lambda x: lax.reduce(x, np.float32(-2), lambda a, b: jnp.where(a > b, a, b), (1,)),
    "reduce_precision": lambda x: lax.reduce_precision(x, 5, 3),
    "reduce_window": lambda x: _window(x, lambda a, b: jnp.where(a > b, a, b), -2.0),
    "reduce_window_max": lambda x: _window(x, lax.max, -np.inf),
    "reduce_window_min": lambda x: _window(x, lax.min, np.inf),
    "reduce_window_sum": _window,
    "regularized_incomplete_beta": lambda x, y: lax.betainc(
        abs(x) + 0.5, abs(y) + 0.5, 0.25 + 0 * x
    ),
    "remat": jax.grad(lambda x: jax.checkpoint(lambda x: jnp.sin(x) ** 2)(x).sum()),
    "reshape": lambda x: x.reshape(4, 16),
    "rev": lambda x: lax.rev(x, (0,)),
    "rng_bit_generator": lambda u: lax.rng_bit_generator(u[0, :4], (8, 8))[1],
    "scan": lambda x: lax.scan(lambda c, row: (c + row, c * row), x[0], x),
    "scatter": lambda x, y: x.at[jnp.arange(4) * 2].set(y[:4]),
    "scatter_add": lambda x, y, n: x.at[n[0]].add(y),
    "scatter_max": lambda x, y, n: x.at[n[0]].max(y),
    "scatter_min": lambda x, y, n: x.at[n[0]].min(y),
    "scatter_mul": lambda x, y: x.at[jnp.arange(4) * 2].mul(y[:4]),
    "schur": lambda x: lax.linalg.schur(x)[0],
    "select_and_gather_add": lambda x, y: jax.jvp(
        partial(_window, combine=lax.max, start=-np.inf), (x,), (y,)
    ),
    "select_and_scatter_add": jax.grad(lambda x: _window(x, lax.max, -np.inf).sum()),
    "select_n": lambda x, y, n: jnp.where(n > 4, x, y),
    "slice": lambda x: lax.slice(x, (4, 0), (8, 8)),
    "sort": lambda x: lax.sort(x, dimension=0),
    "squeeze": lambda x: x[None].squeeze(0),
    "svd": lambda x: lax.linalg.svd(x)[1],
    "threefry2x32": lambda u: jax.extend.random.threefry_2x32(u[0, :2], u),
    "top_k": lambda x: lax.top_k(x, 4),
    "transpose": lambda x: x.T,
    "triangular_solve": lambda x, y: lax.linalg.triangular_solve(
        jnp.tril(x) + 4 * jnp.eye(8), y, left_side=True, lower=True
    ),
    "tridiagonal": lambda x: lax.linalg.tridiagonal(x + x.T)[1],
    "tridiagonal_solve": lambda x, y: lax.linalg.tridiagonal_solve(
        x[:, 0].at[0].set(0), abs(y[:, 0]) + 4, x[:, 1].at[7].set(0), y
    ),
    "while": lambda x: lax.while_loop(lambda c: c[1] < 3, lambda c: (c[0] * 2, c[1] + 1), (x, 0)),
}

LEFT_OUT = {
    "call": "nobody makes it any more: what was a call is a jit",
    "closed_call": "made of other primitives by jax, in programs that do not go on to a user",
    "custom_lin": "a marker of linearization, which is gone before a program is compiled",
    "empty2": "an array of any contents: two programs need not agree",
    "ragged_all_to_all": "XLA does not compile it for CPU",
    "rng_uniform": "random numbers of the device: two programs need not agree",
    "select_and_scatter": "no function of jax makes it",
}
"""Primitives without a call, and why."""


def program(names: Iterable[str]) -> Callable[..., dict[str, Any]]:
    """A function of the inputs: every named call, with layouts that change around it."""

    def lay_out(x: Any) -> Any:
        if not hasattr(x, "ndim") or not x.ndim:
            return x
        rows = "model" if x.shape[0] % 4 == 0 else None
        return lax.with_sharding_constraint(x, NamedSharding(MESH, P(rows)))

    def run(inputs: dict[str, Any]) -> dict[str, Any]:
        results = {}
        for name in names:
            call = CALLS[name]
            taken = [
                lay_out(inputs[arg]) for arg in inspect.signature(call).parameters if arg in inputs
            ]
            results[name] = jax.tree.map(lay_out, call(*taken))
        return results

    return run


def inputs() -> dict[str, Any]:
    return {
        name: jax.device_put(x, NamedSharding(MESH, P("data", "model")))
        for name, x in INPUTS.items()
    }


def missing() -> list[str]:
    """Primitives of jax that neither a call makes nor a reason leaves out."""
    traced = jax.make_jaxpr(program(CALLS))(inputs())
    made = {eqn.primitive for eqn in equations_in(traced.jaxpr)}
    names = [name.removesuffix("_p") for name in dir(primitives) if name.endswith("_p")]
    return [
        name
        for name in names
        if getattr(primitives, f"{name}_p") not in made and name not in LEFT_OUT
    ]


def differences(names: Iterable[str]) -> list[str]:
    """The calls of which `optimize` gives something else than `jax.jit`, in one program of each."""
    names = list(names)
    given = inputs()
    plain, ours = (jit(program(names))(given) for jit in (jax.jit, rjax.optimize))
    wrong = []
    for name in names:
        pairs = zip(jax.tree.leaves(ours[name]), jax.tree.leaves(plain[name]), strict=True)
        if not all(map(_same, *zip(*pairs, strict=True))):
            wrong.append(name)
    return wrong


def _same(a: Any, b: Any) -> bool:
    typed = (a.shape, a.dtype, a.weak_type) == (b.shape, b.dtype, b.weak_type)
    placed = a.sharding.is_equivalent_to(b.sharding, a.ndim)
    return typed and placed and same_bits(np.asarray(a), np.asarray(b))


def main() -> None:
    """Print what is missing and what differs, call by call; exit status 1 if anything does."""
    chosen = sys.argv[1:] or [*CALLS]
    wrong = missing()
    for name in chosen:
        try:
            wrong += differences([name])
        except Exception:  # noqa: BLE001 - all of them are looked at
            wrong.append(f"{name}: {traceback.format_exc(limit=-4)}")
    print(*wrong or [f"{len(chosen)} primitives, none differs"], sep="\n")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
