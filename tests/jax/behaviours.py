"""What jax documents of jit, its constraints and shard_map, each in a small program.

A program is run by `jax.jit` and by `optimize`, which give the same values, dtypes, weak types,
devices and layouts, or the same kind of error. By hand, a failure names its program:
`XLA_FLAGS=--xla_force_host_platform_device_count=8 python -m tests.jax.behaviours [NAME ...]`.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.layout import Format, Layout
from jax.sharding import AxisType, Mesh, NamedSharding, SingleDeviceSharding

from redistrib.backends import jax as rjax
from redistrib.types.tile import same_bits

Program = Callable[[Any], Any]
"""A function of a way to jit."""
P: Any = jax.sharding.PartitionSpec  # typed in parts only, as the next two
lay_out: Any = jax.lax.with_sharding_constraint
lax: Any = jax.lax
DEVICES = np.array(jax.devices()[:8]).reshape(2, 4)
MESH = Mesh(DEVICES, ("x", "y"))
TYPED = Mesh(DEVICES, ("x", "y"), axis_types=(AxisType.Explicit,) * 2)
PROGRAMS: dict[str, Program] = {}


def behaviour(program: Program) -> Program:
    PROGRAMS[program.__name__] = program
    return program


def at(*spec: Any, mesh: Mesh = MESH) -> NamedSharding:
    return NamedSharding(mesh, P(*spec))


def array(*spec: Any, mesh: Mesh = MESH, shape: tuple[int, ...] = (8, 8)) -> Any:
    return jax.device_put(jnp.arange(float(np.prod(shape))).reshape(shape), at(*spec, mesh=mesh))


def turned(x: Any) -> Any:
    """Between two layouts that are nobody else's."""
    return lay_out(lay_out(x, at("y", "x")) * 2, at(("x", "y")))


@behaviour
def results_are_laid_out_as_asked(jit: Any) -> Any:
    return jit(turned, in_shardings=at("x"), out_shardings=at(None, "y"))(array("x"))


@behaviour
def a_prefix_of_shardings_is_for_all_below_it(jit: Any) -> Any:
    def swapped(tree: Any) -> Any:
        return {"b": turned(tree["a"]), "a": turned(tree["b"])}

    return jit(swapped, out_shardings=at("y"))({"a": array("x"), "b": array(None, "x")})


@behaviour
def a_tree_is_constrained_by_a_tree(jit: Any) -> Any:
    ends = {"a": at("y"), "b": (at(None, "x"), at())}
    given = {"a": array("x"), "b": (array("x", "y"), array("y"))}
    return jit(lambda tree: lay_out(tree, ends))(given)


@behaviour
def unconstrained_dimensions_stay(jit: Any) -> Any:
    return jit(lambda x: lay_out(x * 2, at(P.UNCONSTRAINED, "y")))(array("x"))


@behaviour
def numbers_are_wide_where_a_context_says_so(jit: Any) -> Any:
    """XLA's threads, which ask for plans, are not in the context."""
    enable_x64: Any = jax.enable_x64
    with enable_x64(True):
        wide = [array("x").astype(dtype) for dtype in ("float64", "int64", "complex128")]
        return jit(lambda arrays: [turned(x) for x in arrays])(wide)


@behaviour
def a_spec_is_of_the_mesh_in_context(jit: Any) -> Any:
    with jax.set_mesh(MESH):
        return jit(lambda x: lay_out(x + 1, P("y", "x")))(array("x", "y"))


@behaviour
def a_scalar_and_an_empty_array_are_constrained(jit: Any) -> Any:
    empty = array("x", shape=(0, 8))
    return jit(lambda x, e: (lay_out(x.sum(), at()), lay_out(e, at(None, "y"))))(array("x"), empty)


@behaviour
def what_does_not_divide_is_padded(jit: Any) -> Any:
    with warnings.catch_warnings(action="ignore"):  # that it stays with XLA
        return jit(lambda x: lay_out(x, at("y")).sum(1))(array(shape=(6, 8)))


@behaviour
def random_keys_are_constrained(jit: Any) -> Any:
    keys = jax.random.split(jax.random.key(1), 8)
    return jit(lambda keys: jax.random.key_data(lay_out(keys, at("y"))))(keys)


@behaviour
def weak_types_and_numbers_pass(jit: Any) -> Any:
    return jit(lambda x, rate: (lay_out(x, at("y")) * rate, rate, jnp.asarray(2) * rate))(
        array("x"), 0.5
    )


@behaviour
def arrays_of_numpy_go_where_they_are_needed(jit: Any) -> Any:
    return jit(turned, in_shardings=at("x", "y"))(np.arange(64, dtype=np.int16).reshape(8, 8))


@behaviour
def static_arguments_and_keywords(jit: Any) -> Any:
    @partial(jit, static_argnums=1, static_argnames=("twice",))
    def power(x: Any, n: int, *, twice: bool, more: Any) -> Any:
        return turned(x) ** n * (2 if twice else 1) + more

    return power(array("x"), 3, twice=True, more=array("y"))


@behaviour
def a_donated_array_is_given_up(jit: Any) -> Any:
    x = array("x", "y")
    return jit(lambda x: turned(x), donate_argnums=0, out_shardings=at("x", "y"))(x), x.is_deleted()  # noqa: PLW0108


@behaviour
def arguments_that_nobody_uses_are_dropped(jit: Any) -> Any:
    return jit(lambda x, _: turned(x))(array("x"), array("y"))


@behaviour
def a_jit_in_a_jit_in_vmap_and_grad(jit: Any) -> Any:
    inner = jit(turned)
    loss = jit(lambda x: (inner(x) * inner(x + 1)).sum())
    return jax.grad(loss)(array("x")), jax.vmap(inner)(array(None, "x", shape=(2, 8, 8)))


@behaviour
def a_mapped_dimension_has_a_name(jit: Any) -> Any:
    rows = jax.vmap(lambda row: lay_out(row, at("y")) * 2, spmd_axis_name="x")
    return jit(rows)(array("x"))


@behaviour
def a_result_that_is_an_argument_is_itself(jit: Any) -> Any:
    return jit(lambda x, y: (x, y, x, turned(y)))(array("x"), array("y", "x"))


@behaviour
def constants_that_are_closed_over(jit: Any) -> Any:
    held, weight = array("y", "x"), np.float32(3)
    return jit(lambda x: turned(x) @ lay_out(held, at(None, "x")) * weight)(array("x"))


@behaviour
def lowered_ahead_of_time(jit: Any) -> Any:
    made: Any = jax.ShapeDtypeStruct
    like = made((8, 8), np.float32, sharding=at("x", "y"))
    compiled = jit(turned).lower(like).compile()
    return compiled(array("x", "y")), compiled.out_info.shape


@behaviour
def an_order_in_memory_is_asked_for(jit: Any) -> Any:
    return jit(turned, out_shardings=Format(Layout((1, 0)), at("y")))(array("x"))


@behaviour
def errors_are_those_of_jax(jit: Any) -> Any:
    def told(function: Any, x: Any) -> str:
        try:
            jit(function)(x)
        except (ValueError, TypeError) as error:
            return type(error).__name__
        return ""

    alone = SingleDeviceSharding(jax.devices()[1])
    return [
        told(lambda x: lay_out(x, at("x", "y", None)), array("x")),
        told(lambda x: lay_out(x, alone), array("x")),
        told(lambda x: lay_out(x, None), array("x")),
        told(lambda x: jax.sharding.reshard(x, at("y", mesh=TYPED)) @ x, array("x", mesh=TYPED)),
    ]


@behaviour
def types_with_shardings_are_resharded(jit: Any) -> Any:
    def step(x: Any) -> Any:
        columns = jax.sharding.reshard(x, P(None, "y"))
        return jax.sharding.reshard(columns * 2, P("y", "x")), jnp.sum(columns, axis=0)

    with jax.set_mesh(TYPED):
        x = array("x", "y", mesh=TYPED)
        return jit(step)(x), jit(jax.grad(lambda x: (step(x)[0] ** 2).sum()))(x)


@behaviour
def a_product_says_how_it_is_laid_out(jit: Any) -> Any:
    with jax.set_mesh(TYPED):
        a, b = array("x", "y", mesh=TYPED), array("y", mesh=TYPED)
        return jit(lambda a, b: jnp.einsum("ij,jk->ik", a, b, out_sharding=P("x")))(a, b)


def _mapped(jit: Any, f: Any, *specs: Any, **how: Any) -> Any:
    """A constraint, f of tiles, and a constraint."""
    *given, end = specs
    of_tiles = jax.shard_map(f, mesh=MESH, in_specs=tuple(given), out_specs=end, **how)
    return jit(lambda *xs: turned(of_tiles(*(lay_out(x, at("y", "x")) for x in xs))))


@behaviour
def tiles_are_gathered_summed_and_exchanged(jit: Any) -> Any:
    def tile(x: Any) -> Any:
        whole = lax.all_gather(x, "x", tiled=True)
        parts = lax.psum_scatter(whole, "x", tiled=True)
        return lax.all_to_all(parts, "y", 1, 1, tiled=True)

    return _mapped(jit, tile, P("x", None), P("x", "y"))(array("x"))


@behaviour
def tiles_of_a_product_are_summed(jit: Any) -> Any:
    product = _mapped(
        jit, lambda a, b: lax.psum(a @ b, "y"), P("x", "y"), P("y", None), P("x", None)
    )
    loss = jax.grad(lambda a, b: (product(a, b) ** 2).sum(), argnums=(0, 1))
    return product(array("x") / 64, array("y") / 64), jit(loss)(array("x") / 64, array("y") / 64)


@behaviour
def tiles_go_around_and_know_their_place(jit: Any) -> Any:
    def tile(x: Any) -> Any:
        turn = [(n, (n + 1) % 4) for n in range(4)]
        return lax.ppermute(x, "y", turn) + lax.axis_index("x").astype(x.dtype)

    return _mapped(jit, tile, P("x", "y"), P("x", "y"))(array("x", "y"))


@behaviour
def tiles_of_some_axes_leave_the_rest_to_jit(jit: Any) -> Any:
    def tile(x: Any) -> Any:
        return lax.psum(lay_out(x * 2, P(None, "y")), "x")

    return _mapped(jit, tile, P("x"), P(), axis_names={"x"})(array("x", shape=(16, 8)))


@behaviour
def tiles_in_loops_and_branches(jit: Any) -> Any:
    def tile(x: Any) -> Any:
        first = lax.fori_loop(0, 3, lambda _, c: c * 2, x)
        return lax.cond(lax.psum(x, ("x", "y"))[0, 0] > 0, lambda: first, lambda: x)

    return _mapped(jit, jax.checkpoint(tile), P("x", "y"), P("x", "y"))(array("x", "y"))


def difference(name: str) -> str:
    """What `optimize` does otherwise than jax in a program, or nothing."""
    plain, ours = (PROGRAMS[name](jit) for jit in (jax.jit, rjax.optimize))
    if jax.tree.structure(plain) != jax.tree.structure(ours):
        return f"{name}: other trees"
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(plain), strict=True)
    found = [f"{_described(a)} for {_described(b)}" for a, b in pairs if not _same(a, b)]
    return f"{name}: {'; '.join(found)}" if found else ""


def _same(a: Any, b: Any) -> bool:
    if not isinstance(a, jax.Array) or not isinstance(b, jax.Array):
        return bool(a == b)
    typed = (a.shape, a.dtype, a.weak_type) == (b.shape, b.dtype, b.weak_type)
    placed = a.sharding.is_equivalent_to(b.sharding, a.ndim) and a.format.layout == b.format.layout
    return typed and placed and same_bits(np.asarray(a), np.asarray(b))


def _described(x: Any) -> str:
    return f"{jax.typeof(x)} {x.format}" if isinstance(x, jax.Array) else str(x)


def main() -> None:
    """Print what differs; exit status 1 if anything does."""
    chosen = sys.argv[1:] or [*PROGRAMS]
    wrong = [found for name in chosen if (found := difference(name))]
    print(*wrong or [f"{len(chosen)} programs, none differs"], sep="\n")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
