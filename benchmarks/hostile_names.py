"""Names that lead elsewhere or are malformed: inputs, lines of a list, tasks, OUT, config keys."""

import shutil
from collections.abc import Iterator

from hostile_case import Case, Commands, Place

NAMES = (
    "..", "../..", "../../../../etc/passwd", "/etc/passwd", "/", ".", "", "a\0b", "a\nb", "x" * 4096, "x/" * 3000, "-o",
    "--force", "%s", "%n%n%n", "%d", "%0999999999d.png", "{}", "{0.__class__}", "${HOME}", "~root", "~nobody-such", "~",
    "*", "**", "[", "[!", "[]]", "?" * 300, "a\x1b[2Jb", "\u202egpj.exe", "\ud83d\udca9", "con", "a:b",
    "file:///etc/passwd", "http://127.0.0.1:9/x.mp4", "rtsp://127.0.0.1:9/x", "concat:a|b", "pipe:0",
    "subfile,,start,0,end,9,,:/etc/passwd",
    "data:text/plain,hello", "\\\\host\\share", "a\\..\\..\\b", " ", "\t", "\udcff\udcfe", "./././x",
    "x" * 255 + ".mp4",
)  # fmt: skip


def cases(seed: int) -> Iterator[Case]:
    """Cases without end."""
    ways = (_listed, _typed, _task, _out, _file_of_that_name, _key)
    number = 0
    while True:
        way = ways[number % len(ways)]
        yield Case("name", way.__name__.strip("_").replace("_", " "), f"{seed}/name/{number}", way)
        number += 1


def _some(place: Place, count: int) -> list[str]:
    return place.random.sample(NAMES, count)


def _listed(place: Place) -> Commands:
    commands = []
    for number, name in enumerate(_some(place, 4)):
        path = place.inputs / f"list{number}.txt"
        path.write_bytes(f"{name}\n".encode("utf-8", "surrogatepass"))
        commands.append(place.run(path))
    return commands


def _typed(place: Place) -> Commands:
    return [["run", "-o", str(place.out), "--", name] for name in _some(place, 4) if "\0" not in name]


def _task(place: Place) -> Commands:
    _finished(place)
    name, other = _some(place, 2)
    return [
        ["backfill", str(place.out), "--task", name],
        place.run(place.stock.clips[0], more=["--tasks", other, "--force"]),
        ["models", "check", name],
    ]


def _out(place: Place) -> Commands:
    plain = [each for each in NAMES if each.isprintable() and not each.startswith(("/", "~", ".."))]
    name = place.random.choice(plain)  # OUT is printed as it was typed
    clip, inside = str(place.stock.clips[0]), f"{place.out}/{name}"
    if ".." in name.split("/"):
        return []
    strange = place.random.choice(["/dev/null", "/dev/null/x", "/proc/x", "/proc/self/fd", str(place.stock.clips[0])])
    options = ["--model", str(place.stock.model), *place.stock.options]
    return [
        ["run", clip, "-o", inside, *options],
        ["report", inside],
        ["cache", "gc", inside],
        ["run", clip, "-o", strange, *options],
        ["report", strange],
    ]


def _file_of_that_name(place: Place) -> Commands:
    """Names of real clips, as far as a file system allows them."""
    made = []
    for name in _some(place, 6):
        path = place.inputs / f"{name.replace('/', '_').replace(chr(0), '_')[:200]}.avi"
        path.write_bytes(place.stock.clips[1].read_bytes())
        made.append(path)
    return [place.run(*made[:1], "--json"), place.run(place.inputs), ["report", str(place.out)]]


def _key(place: Place) -> Commands:
    name, other, third = _some(place, 3)
    path = place.inputs / "config.yaml"
    path.write_bytes(f"model: {name}\n".encode("utf-8", "surrogatepass"))
    return [
        ["config", "show", "--set", f"{name}={other}"],
        ["config", "show", "--config", str(path)],
        ["config", "show", "--preset", third, "--model", other],
    ]


def _finished(place: Place) -> None:
    shutil.copytree(place.stock.run, place.out, symlinks=True)
