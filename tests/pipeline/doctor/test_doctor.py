"""`deltascene doctor`: real checks on this machine, and what a broken one would be told."""

import io
import json
import subprocess
import sys
import warnings

import pytest
from rich.console import Console

from deltascene.pipeline.commands.doctor import exit_code, print_checks
from deltascene.pipeline.doctor import machine, media, packages
from deltascene.pipeline.doctor.check import Check, guarded
from deltascene.pipeline.doctor.examine import examine
from deltascene.pipeline.doctor.model import check_model_runs
from deltascene.pipeline.errors import OutputError


@pytest.fixture(scope="module")
def checks(tiny):
    return {check.name: check for check in examine(tiny)}


def printed(checks: list[Check], *, as_json: bool = False) -> tuple[str, int]:
    console = Console(file=io.StringIO(), width=100)
    print_checks(console, checks, as_json=as_json)
    return console.file.getvalue(), exit_code(checks)


def test_this_machine_has_no_problem_and_every_check_is_made(checks):
    for name in ("python", "deltascene", "torch", "timm", "opencv-python", "numpy", "zarr", "ray", "pyarrow"):
        assert checks[name].status == "ok", checks[name]
    made = ["torchvision", "processor", "cores", "instruction sets", "memory", "torch threads", "kernel"]
    made += ["arithmetic", "GPU", "av decoding", "decord decoding", "overlay", "model", "disk"]
    assert list(checks)[-len(made) :] == made
    assert [check for check in checks.values() if check.status == "problem"] == []
    assert "runs on the CPU" in checks["GPU"].found


def test_a_clip_is_really_read_by_each_decoder(checks):
    assert checks["av decoding"].found.startswith("av ")
    if checks["decord"].found != "absent":
        assert checks["decord decoding"].found.startswith("decord ")
    assert "mean error" in checks["overlay"].found


def test_the_model_is_timed_beside_timm(checks):
    assert "a frame at 48x64 in" in checks["model"].found
    assert "timm's forward alone" in checks["model"].found


def test_a_model_that_isnt_there_is_a_problem():
    (check,) = check_model_runs("no/such/folder")
    assert (check.status, check.name) == ("problem", "model")
    assert "no packaged model or folder 'no/such/folder'" in check.found


def test_the_table_can_be_pasted_and_the_code_says_whether_there_is_a_problem():
    good, poor = Check("a [b]", "ok", "found [red]it"), Check("memory", "warning", "little", "buy more")
    text, code = printed([good, poor])
    assert code == 0
    assert "a [b]" in text
    assert "found [red]it" in text
    assert "-> buy more" in text
    assert text.endswith("0 problems, 1 warning\n")
    assert text.isascii()
    text, code = printed([good, Check("model", "problem", "broken", "mend it")])
    assert code == 1
    assert text.endswith("1 problem, 0 warnings\n")


def test_json_has_every_check_whole():
    long = Check("memory", "warning", "x" * 500, "y [b]")
    text, code = printed([long], as_json=True)
    assert json.loads(text) == [{"name": "memory", "status": "warning", "found": "x" * 500, "way_out": "y [b]"}]
    assert code == 0


def test_a_check_that_fails_itself_is_a_problem_and_its_warnings_are_kept_back():
    def broken() -> list[Check]:
        warnings.warn("noise", stacklevel=1)
        raise ZeroDivisionError("by\nzero")

    (check,) = guarded("disk", broken)
    assert (check.name, check.status, check.found) == ("disk", "problem", "ZeroDivisionError: by zero")


@pytest.mark.parametrize(
    ("name", "wheel", "status"), [("decord", True, "warning"), ("decord", False, "ok"), ("zarr", True, "problem")]
)
def test_absent_packages(monkeypatch, name, wheel, status):
    monkeypatch.setattr(packages, "versions_record", lambda: {name: "absent"})
    monkeypatch.setattr(packages, "has_decord_wheel", lambda: wheel)
    (check,) = packages.check_versions()
    assert (check.name, check.status) == (name, status)
    assert bool(check.way_out) == (status != "ok")


def test_a_torchvision_of_another_torch_is_a_problem(monkeypatch):
    def mismatched(name: str) -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(packages.importlib, "import_module", mismatched)
    (check,) = packages.check_torchvision()
    assert check.status == "problem"
    assert "operator torchvision::nms does not exist" in check.found
    assert "pip install" in check.way_out


@pytest.mark.parametrize(("decoder", "status"), [("decord", "warning"), ("av", "problem")])
def test_a_decoder_that_gives_wrong_pictures_or_none_is_told(monkeypatch, tmp_path, decoder, status):
    assert media._write_clip(tmp_path / "clip.mp4")
    monkeypatch.setattr(media, "_pictures", lambda: reversed(list(PICTURES)))
    wrong = media._check_decoder("av", tmp_path / "clip.mp4")
    assert wrong.status == "problem"
    assert "wrong pictures, mean error" in wrong.found
    (tmp_path / "clip.mp4").write_bytes(b"no video")
    assert media._check_decoder(decoder, tmp_path / "clip.mp4").status == status


PICTURES = tuple(media._pictures())


def test_an_overlay_that_cant_be_written_has_a_way_out(monkeypatch):
    def refused(*args: object) -> None:
        raise OutputError("the encoder failed")

    monkeypatch.setattr("deltascene.pipeline.drawing.webm.WebmWriter", refused)
    (check,) = media.check_webm()
    assert (check.status, check.way_out) == ("problem", "--set save.video=false runs without overlays")


@pytest.mark.parametrize(("quota", "cores"), [("150000 100000", 1.5), ("max 100000", 3), ("", 3), ("900000 100000", 3)])
def test_cores_are_those_of_the_container(monkeypatch, tmp_path, quota, cores):
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda pid: {0, 1, 2}, raising=False)
    if quota:
        (tmp_path / "cpu.max").write_text(f"{quota}\n")
    assert machine.usable_cores(tmp_path) == cores


def test_more_threads_than_cores_is_a_warning(monkeypatch):
    monkeypatch.setattr(machine, "usable_cores", lambda: 0.4)
    (check,) = machine.check_threads()
    assert (check.status, check.way_out) == ("warning", "--set numerics.threads=1")


@pytest.mark.parametrize(("free", "status"), [(10**8, "problem"), (10**9, "warning"), (10**11, "ok")])
def test_little_disk_is_told(monkeypatch, free, status):
    usage = machine.shutil.disk_usage(".")._replace(free=free)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda folder: usage)
    (check,) = machine.check_disk()
    assert check.status == status


@pytest.mark.parametrize(("free", "limit", "status"), [(30, None, "ok"), (1, None, "warning"), (30, 1, "warning")])
def test_little_memory_is_told_in_a_container_too(monkeypatch, tmp_path, free, limit, status):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(f"MemTotal: {32 << 20} kB\nMemAvailable: {free << 20} kB\n")
    monkeypatch.setattr(machine, "_MEMINFO", meminfo)
    if limit is not None:
        (tmp_path / "memory.max").write_text(f"{limit << 30}\n")
        (tmp_path / "memory.current").write_text("0\n")
    (check,) = machine.check_memory(tmp_path)
    assert check.status == status


def test_a_processor_without_avx2_is_slow(monkeypatch, tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("flags\t\t: fpu sse2\n")
    monkeypatch.setattr(machine, "_CPUINFO", cpuinfo)
    monkeypatch.setattr(machine.platform, "machine", lambda: "x86_64")
    (check,) = machine.check_instruction_sets()
    assert check.status == "warning"
    assert "AVX2 no" in check.found


def test_nothing_heavy_is_imported_before_a_check_is_made():
    heavy = {"torch", "cv2", "decord", "timm", "ray"}
    code = f"import sys, deltascene.pipeline.doctor.examine; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
