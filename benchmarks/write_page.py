"""Runs the benchmarks and writes their output into docs/benchmarks.md and docs/scaling.md: `make bench`.

Every program's output is written between its marks in the page, so that single parts can be measured again:
`python benchmarks/write_page.py speed`. Plots are drawn from the same numbers.
"""

import argparse
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAGE, PLOT = HERE.parent / "docs" / "benchmarks.md", HERE.parent / "docs" / "images" / "speed.svg"
PARTS = {
    "speed": ["speed.py"],
    "quality": ["quality.py", "--timing", "1", "--baselines", "--threads", "2", "--frames", "60"],
    "dense": ["dense.py", "--runs", "15"],
    "frames": ["frames.py"],
    "archive": ["archive.py", "--runs", "2"],
    "memory": ["memory.py"],
    "scale": ["scale.py", "--brief"],
}
SCALING = HERE.parent / "docs" / "scaling.md"
_ROWS = re.compile(r"\| (?P<network>[^|]+, \d+) \| (?P<share>\d+)% of the rows, (?P<way>[\w ]+) \| (?P<ms>[\d.]+) \|")
_DENSE = re.compile(r"\| (?P<network>[^|]+, \d+) \| (?P<who>(eager|OpenVINO) \w+) \| (?P<ms>[\d.]+) \|")


def main() -> None:
    """Runs the programs and writes their outputs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="some of them; default all")
    for part in parser.parse_args().parts or PARTS:
        print(f"== {part}", flush=True)
        text = run(PARTS[part])
        write(part, text)
        if part == "speed":
            plot(text)


def run(arguments: list[str]) -> str:
    """Runs a program and shows its output; returns the output."""
    command = [sys.executable, str(HERE / arguments[0]), *arguments[1:]]
    lines = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        for line in program.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    if program.returncode:
        sys.exit(f"{' '.join(arguments)}: failed")
    return "".join(lines).strip()


def write(part: str, text: str) -> None:
    """Writes an output between its marks."""
    begin, end = f"<!-- begin {part} -->", f"<!-- end {part} -->"
    page = SCALING if part == "scale" else PAGE
    before, found, rest = page.read_text(encoding="utf-8").partition(begin)
    if not found or end not in rest:
        sys.exit(f"{page.name}: expected {begin} and {end}")
    if "\n|" not in text:  # plain lines
        text = f"```\n{text}\n```"
    part_text = f"{begin}\n\n`python benchmarks/{' '.join(PARTS[part])}`\n\n{text}\n\n{end}"
    page.write_text(before + part_text + rest.partition(end)[2], encoding="utf-8")


def plot(text: str) -> None:
    """Plots milliseconds against the share of rows, with a panel for each network."""
    from matplotlib import pyplot

    lines: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    levels: dict[str, dict[str, float]] = defaultdict(dict)
    for line in text.splitlines():
        if rows := _ROWS.match(line):
            lines[rows["network"]][rows["way"]][int(rows["share"])] = float(rows["ms"])
        elif dense := _DENSE.match(line):
            levels[dense["network"]][dense["who"]] = float(dense["ms"])
    figure, panels = pyplot.subplots(1, len(lines), figsize=(4 * len(lines), 3.6), squeeze=False)
    for panel, (network, by_way) in zip(panels[0], lines.items(), strict=True):
        for way, points in by_way.items():
            shares = sorted(points)
            panel.plot(shares, [points[share] for share in shares], marker="o", label=f"rows, {way}")
        for (who, ms), style in zip(levels[network].items(), ("-", "--", ":", "-."), strict=False):
            panel.axhline(ms, color="grey", linestyle=style, linewidth=1, label=f"dense, {who}")
        panel.set(title=f"{network} tokens", xlabel="% of the rows", ylabel="ms", xscale="log", yscale="log")
        panel.set_xticks(shares, [f"{share}" for share in shares])
        ticks = [tick for tick in (2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000) if panel.get_ylim()[0] < tick]
        panel.set_yticks(ticks, [f"{tick}" for tick in ticks])
        panel.set_ylim(top=1.5 * max(levels[network].values()))
        panel.minorticks_off()
        panel.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(PLOT, metadata={"Date": None})
    pyplot.close(figure)


if __name__ == "__main__":
    main()
