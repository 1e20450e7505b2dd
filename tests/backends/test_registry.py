"""The registry of backends: what is known of each, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import redistrib as rd
from redistrib.backends import registry
from redistrib.backends.registry import BACKENDS, Processes, find_backend


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.name)
def test_every_backend_of_the_registry_is_a_module_with_run_array(
    backend: registry.Backend,
) -> None:
    assert find_backend(backend.name) is backend
    if backend.name == "torch":  # in an environment of its own: tests/torch
        return
    assert backend.missing() is None
    assert backend.version()
    module = backend.load()
    wanted = {"run_array"} | ({"run", "measure"} if backend.processes is Processes.THIS else set())
    assert wanted <= set(dir(module))


def test_unknown_names_are_refused_with_those_there_are() -> None:
    with pytest.raises(rd.BackendError, match="are simulator, jax, mpi, torch; got cuda") as error:
        find_backend("cuda")
    assert error.value.backend == "cuda"


def test_a_backend_that_is_not_installed_says_what_to_install() -> None:
    backend = replace(
        find_backend("jax"), name="toy", module="redistrib.nowhere", package="nowhere", extras="toy"
    )
    assert backend.version() is None
    assert backend.missing() == "not installed: pip install 'redistrib[toy]'"
    with pytest.raises(rd.BackendError, match=r"toy is not installed: pip install 'redistrib\[to"):
        backend.load()


def test_ranks_need_an_mpiexec(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "find_mpiexec", lambda: None)
    assert "no mpiexec" in (find_backend("mpi").missing() or "")
    assert find_backend("simulator").missing() is None


def test_the_simulator_runs_whole_arrays() -> None:
    mesh = rd.Mesh(x=2, y=2)
    plan = rd.plan(*(rd.ArrayType.parse(t, mesh) for t in ("i32[4{x}, 6{y}]", "i32[4{y}, 6]")))
    array = np.arange(24, dtype=np.int32).reshape(4, 6)
    assert np.array_equal(find_backend("simulator").load().run_array(plan, array), array)
