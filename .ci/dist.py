"""Build the wheel and the sdist, look at what is in them, and run the tests against the installed wheel.

    python .ci/dist.py [PYTEST_ARGUMENT...]

Needs the package `build`. What it has built stays in dist/; all else is made in a temporary directory.

1. Build the sdist from this tree, and the wheel from the sdist, so that the sdist is known to be complete.
2. Look whether the wheel has every module, the licence and the mark of typed packages, and nothing else.
3. Install the wheel, with the extra `test`, into a fresh environment.
4. Run the tests that are in the sdist there: procflow is the installed one, not this tree's.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"
# What someone who has only the sdist needs to build, test and read it.
OF_SDIST = ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "Makefile")
FOLDERS_OF_SDIST = (".ci", "benchmarks", "docs", "examples", "src", "tests", "typings")
JUNK = ("__pycache__", ".pyc", ".so", ".git/", ".venv", ".hypothesis", ".mypy_cache")


def main() -> int:
    """Do all of it; return the exit code of the tests."""
    wheel, sdist = build()
    check_wheel(wheel)
    check_sdist(sdist)
    with tempfile.TemporaryDirectory(prefix="procflow-dist-") as folder:
        python = install(wheel, Path(folder, "venv"))
        with tarfile.open(sdist) as archive:
            archive.extractall(folder, filter="data")
        return test(python, Path(folder, sdist.name.removesuffix(".tar.gz")), sys.argv[1:])


def build() -> tuple[Path, Path]:
    """Build both; return their paths."""
    shutil.rmtree(DIST, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "build", "--outdir", str(DIST), str(ROOT)], check=True)
    return only("*.whl"), only("*.tar.gz")


def only(pattern: str) -> Path:
    """The one file in dist/ that fits."""
    found = sorted(DIST.glob(pattern))
    require(len(found) == 1, f"dist/ has {len(found)} files {pattern}")
    return found[0]


def check_wheel(wheel: Path) -> None:
    """Every module of src/, py.typed, the licence; and nothing else."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    info = next(name.split("/")[0] for name in names if ".dist-info/" in name)
    wanted = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src" / "procflow").rglob("*.py")}
    wanted |= {"procflow/py.typed", f"{info}/METADATA", f"{info}/WHEEL", f"{info}/RECORD", f"{info}/licenses/LICENSE"}
    require(names == wanted, f"the wheel has {names - wanted} too much, and lacks {wanted - names}")
    print(f"{wheel.name}: {len(names)} files, all that it should have")


def check_sdist(sdist: Path) -> None:
    """All that it takes to build and test; no files of tools."""
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    lacking = [name for name in OF_SDIST if name not in names]
    lacking += [folder for folder in FOLDERS_OF_SDIST if not any(name.startswith(f"{folder}/") for name in names)]
    require(not lacking, f"the sdist lacks {lacking}")
    junk = [name for name in names if any(mark in name for mark in JUNK)]
    require(not junk, f"the sdist has {junk}")
    print(f"{sdist.name}: {len(names)} files, nothing lacking")


def install(wheel: Path, folder: Path) -> Path:
    """Make an environment with the wheel and what its tests need; return its interpreter."""
    venv.create(folder, with_pip=True, clear=True)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    print(f"Installing {wheel.name} with what the tests need", flush=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    subprocess.run([*pip, f"{wheel}[test]"], check=True, stdin=subprocess.DEVNULL)
    return python


def test(python: Path, tree: Path, arguments: list[str]) -> int:
    """Run the tests of the unpacked sdist with what is installed."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    where = "import procflow; print(procflow.__file__)"
    found = subprocess.run(
        [str(python), "-c", where], cwd=tree, env=environment, check=True, capture_output=True, text=True
    )
    require("site-packages" in found.stdout, f"the tests would test {found.stdout}")
    print(f"Testing {found.stdout}", flush=True)
    done = subprocess.run([str(python), "-m", "pytest", *arguments], cwd=tree, env=environment, check=False)
    return done.returncode


def require(fact: bool, otherwise: str) -> None:
    """End the program, unless that is so."""
    if not fact:
        sys.exit(f"dist: {otherwise}")


if __name__ == "__main__":
    sys.exit(main())
