"""The tests of the jax backend on other versions of jax: `python -m tests.exhaustive.jax_versions`.

Without arguments on the oldest that setup.cfg allows. Each version is installed into an environment
of its own under build/, which is kept; one that needs another Python is started with that one.
"""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("numpy>=2", "pytest>=9", "hypothesis>=6.150", "ml_dtypes>=0.5")


def oldest() -> str:
    """The oldest version of jax that setup.cfg allows."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    found = re.search(r"jax >=([0-9.]+)", config["options.extras_require"]["jax"])
    assert found, "setup.cfg names the oldest jax"
    return f"{found[1]}.0" if found[1].count(".") == 1 else found[1]


def run_on(version: str) -> int:
    """Exit status of the tests on one version."""
    place = ROOT / "build" / f"jax-{version}-python{sys.version_info[0]}.{sys.version_info[1]}"
    python = place / "bin" / "python"
    if not python.exists():
        venv.create(place, with_pip=True)
        install: list[str | Path] = [
            python,
            "-m",
            "pip",
            "install",
            "--quiet",
            f"jax=={version}",
            *PACKAGES,
        ]
        subprocess.run(install, check=True)
    tests = sorted(str(path) for path in (ROOT / "tests/jax").glob("test_*.py"))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [python, "-m", "pytest", "-q", *tests], cwd=ROOT, env=environment, check=False
    )
    print(f"jax {version}: {'passed' if run.returncode == 0 else 'failed'}")
    return run.returncode


if __name__ == "__main__":
    sys.exit(max([run_on(version) for version in sys.argv[1:] or [oldest()]]))
