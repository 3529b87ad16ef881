"""The package as others get it: a source archive, a wheel from it, and that wheel installed elsewhere."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("cache", "configs", "pipeline", "stages")


def run(*command: object, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def kept_files() -> list[str]:
    """Files of the working tree that git tracks, or would."""
    if not shutil.which("git") or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    names = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT).split("\0")
    return sorted(name for name in set(names) if name and (ROOT / name).is_file())


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """Folder with a source archive and the wheel that was built from it; the checkout itself stays untouched."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for name in kept_files():
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source, cwd=out)
    return out


@pytest.fixture(scope="module")
def wheel(built) -> Path:
    (found,) = built.glob("*.whl")
    return found


def installed_name(name: str) -> str:
    inside = name.removeprefix("pipeline/public/")
    return f"deltascene/{inside}"


def test_the_wheel_holds_every_file_of_the_four_folders_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = {installed_name(name) for name in kept_files() if name.startswith(tuple(f"{f}/" for f in FOLDERS))}
    assert found == expected


def test_the_wheel_carries_its_licences(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name.rsplit("/", 1)[-1] for name in archive.namelist() if ".dist-info/licenses/" in name}
    assert names == {"LICENSE", "NOTICE"}


def test_the_source_archive_holds_the_four_folders(built):
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        found = {name.partition("/")[2] for name in archive.getnames()}
    kept = {name for name in kept_files() if name.startswith(tuple(f"{folder}/" for folder in FOLDERS))}
    assert kept | {"pyproject.toml", "README.md", "LICENSE", "NOTICE"} <= found


def test_the_wheel_works_from_anywhere(wheel, tmp_path):
    target, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    run(sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", target, wheel, cwd=elsewhere)
    code = (
        "import deltascene\n"
        "from deltascene.pipeline.bundles.bundle import packaged_models, read_bundle\n"
        "from deltascene.pipeline.config import load_config\n"
        "print(deltascene.__file__, deltascene.Frame.__module__, load_config('exact').model)\n"
        "for name, folder in packaged_models().items():\n"
        "    print(name, all(path.is_file() for path in read_bundle(name).weight_files([])))\n"
    )
    said = run(sys.executable, "-c", code, cwd=elsewhere, PYTHONPATH=str(target)).splitlines()
    assert said[0] == f"{target / 'deltascene' / '__init__.py'} deltascene.stages.types rooms"
    assert "rooms True" in said[1:]
