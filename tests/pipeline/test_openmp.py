"""OpenMP's threads spin briefly by the command's, the actors' and the face's way to torch, unless the user set them."""

import os
import re
import subprocess
import sys

import pytest

from deltascene.pipeline.openmp import SETTINGS, SPINS, brief_spins, user_setting

WAYS = {
    "face": "from deltascene import Engine",
    "actor": "from deltascene.pipeline.quick_imports import quick_imports\nwith quick_imports():\n    import torch",
    "command": (
        "from deltascene.pipeline.cli import app as cli\n"
        "def load_torch():\n    import torch\n"
        "cli.app = load_torch\n"
        "try:\n    cli.main()\nexcept SystemExit:\n    pass"
    ),
}


def spins(code: str, **variables: str) -> int:
    """Spins before a thread sleeps, as GNU's library says when it is loaded; the settings are afterwards as before."""
    clean = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    code += (
        f"\nimport os\nassert {variables} == {{name: os.environ[name] for name in {SETTINGS} if name in os.environ}}"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**clean, "OMP_DISPLAY_ENV": "verbose", **variables},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found = re.findall(r"GOMP_SPINCOUNT = '(\d+)'", done.stderr)
    if not found:
        pytest.skip("torch's OpenMP library isn't GNU's")
    return int(found[-1])


@pytest.mark.parametrize("way", WAYS)
def test_threads_spin_briefly(way):
    assert spins(WAYS[way]) == int(SPINS)


def test_a_setting_of_the_user_stays():
    assert spins(WAYS["face"], GOMP_SPINCOUNT="7") == 7
    assert spins(WAYS["face"], OMP_WAIT_POLICY="passive") == 0


def test_torch_was_there_first():
    assert spins(f"import torch\n{WAYS['face']}") == 300_000


@pytest.mark.parametrize("name", SETTINGS)
def test_nothing_is_set_beside_the_users_own(monkeypatch, name):
    for other in SETTINGS:
        monkeypatch.delenv(other, raising=False)
    monkeypatch.delitem(sys.modules, "torch")  # as if nobody had loaded it
    assert user_setting() is None
    with brief_spins():
        assert user_setting() == f"GOMP_SPINCOUNT={SPINS}"
    assert user_setting() is None
    monkeypatch.setenv(name, "1")
    with brief_spins():
        assert [each for each in SETTINGS if each in os.environ] == [name]
    assert user_setting() == f"{name}=1"
