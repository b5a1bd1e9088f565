#!/usr/bin/env python3
"""Draws what benchmarks measured: benches/charts.py [PAGE...]

    python3 -m venv venv && venv/bin/pip install matplotlib && venv/bin/python benches/charts.py

Reads benches/results/*.json and writes SVG into docs/img/. One function a page; without arguments, all of them. The same figures
give the same bytes, so that a drawing changes only where a figure does.
"""

import json
import pathlib
import sys

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plot  # noqa: E402

REPO = pathlib.Path(__file__).resolve().parent.parent
RESULTS = REPO / "benches" / "results"
IMAGES = REPO / "docs" / "img"

plot.rcParams.update({
    # Text stays text: smaller, searchable, and in the reader's own font.
    "svg.fonttype": "none",
    "svg.hashsalt": "charts",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    # Readable on a white page and on a dark one.
    "figure.facecolor": "white",
})
OURS, REAL, THEIRS, GOAL = "#1f6feb", "#8250df", "#9a6700", "#cf222e"


def results(name):
    """The rows of a benchmark, by case and metric."""
    report = json.loads((RESULTS / f"{name}.json").read_text())
    return {(row["case"], row["metric"]): row for row in report["results"]}


def save(figure, name):
    IMAGES.mkdir(exist_ok=True)
    path = IMAGES / f"{name}.svg"
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plot.close(figure)
    print(path.relative_to(REPO))


def scale():
    """docs/scale.md"""
    rows = results("fleet")
    sizes = [1, 10, 100, 1000]

    def over_sizes(metric):
        return [rows[f"edit-{size}", metric]["ours"] for size in sizes]

    figure, axes = plot.subplots(figsize=(6.4, 3.4))
    axes.plot(sizes, over_sizes("edit → published, p99"), "o-", color=OURS, label="p99")
    axes.plot(sizes, over_sizes("edit → published, p50"), "o--", color=OURS, label="p50")
    axes.plot(sizes, over_sizes("edit → published, real volumes, p99"), "s-", color=REAL, label="p99, real volumes")
    goal = rows["edit-1000", "edit → published, p99"]["goal"]
    axes.axhline(goal, color=GOAL, linewidth=1, linestyle=":")
    axes.annotate("goal", (1, goal), color=GOAL, xytext=(0, 3), textcoords="offset points")
    axes.set(xscale="log", yscale="log", xlabel="pullers", ylabel="ms", title="From an edit to published by all")
    axes.legend(frameon=False)
    save(figure, "scale-edit")

    figure, axes = plot.subplots(figsize=(6.4, 3.4))
    axes.plot(sizes, over_sizes("manager's CPU per edit and puller"), "o-", color=OURS)
    axes.set(
        xscale="log", ylim=(0, None), xlabel="pullers", ylabel="ms",
        title="Content manager's CPU per edit and puller",
    )
    save(figure, "scale-cpu")

    cases = [1000, 10_000]
    memory = [rows[f"waiting-{case}", "manager's memory"] for case in cases]
    figure, axes = plot.subplots(figsize=(6.4, 2.6))
    labels = [f"{case:,} waiters" for case in cases]
    axes.barh(labels, [row["ours"] for row in memory], color=OURS, height=0.5)
    for position, row in enumerate(memory):
        axes.plot([row["goal"]] * 2, [position - 0.35, position + 0.35], color=GOAL, linewidth=2)
        axes.annotate(f" {row['ours']:.0f}", (row["ours"], position), va="center")
    axes.set(xlabel="MiB (red: goal)", title="Content manager's memory while nothing changes")
    axes.grid(axis="y", visible=False)
    save(figure, "scale-memory")


# The containers' colours on the site; peers are grey.
CONTAINERS = {"file-puller": "#0b6b5d", "web-server": "#2a4fa3", "log-agent": "#8a4b08"}
GREYS = ["#8b959c", "#b3bbc1", "#cfd5d9"]


def beside_peers(ours, title, unit, rows, name):
    """A group of bars a row, ours first. `rows` are (label, row of the results, the peers' names in it and on the chart)."""
    figure, axes = plot.subplots(figsize=(4.4, 0.9 + sum(0.34 + 0.24 * (1 + len(peers)) for _, _, peers in rows)))
    most = max(max(row["ours"], *(row["peers"][peer] for peer in peers)) for _, row, peers in rows)
    y, ticks = 0.0, []
    for label, row, peers in rows:
        axes.annotate(label, (0, y), va="center", weight="bold", fontsize=9)
        for number, (peer, size) in enumerate([(ours, row["ours"]), *((shown, row["peers"][peer]) for peer, shown in peers.items())]):
            y += 0.27
            axes.barh(y, size, height=0.23, color=CONTAINERS[ours] if number == 0 else GREYS[number - 1])
            times = f", {size / row['ours']:.1f} times" if number else ""
            axes.annotate(f" {peer}: {size:.3g}{times}", (size, y), va="center", fontsize=8)
        y += 0.34
        ticks.append(y)
    axes.set(xlim=(0, most * 1.6), ylim=(y, -0.2), yticks=[], xlabel=unit)
    axes.set_title(title, fontsize=10, loc="left")
    axes.spines["left"].set_visible(False)
    axes.set_axisbelow(True)
    save(figure, name)


def benchmarks():
    """docs/benchmarks.md and README.md"""
    rows = results("file-puller")
    beside_peers("file-puller", "A site of 10,000 files, fetched from nginx", "CPU seconds; less is better", [
        ("first sync", rows["full sync of 10,000 files", "CPU"], {"rclone sync, 16 transfers": "rclone", "wget -m": "wget"}),
    ], "bench-file-puller")

    rows = results("web-server")
    nginx = {"nginx": "nginx"}
    beside_peers("web-server", "A request, with the access log on", "CPU, µs; less is better", [
        ("1 KiB of a release", rows["1k", "cpu"], nginx),
        ("1 KiB of a plain directory", rows["plain-1k", "cpu"], nginx),
    ], "bench-web-server")

    rows = results("log-agent")
    beside_peers("log-agent", "300 MB of JSON lines, confirmed by the receiver", "CPU seconds; less is better", [
        ("from a file to a file", rows["raw to file, 300 MB", "CPU"], {"cp": "cp", "rsyslog": "rsyslog"}),
    ], "bench-log-agent")


PAGES = {"scale": scale, "benchmarks": benchmarks}

if __name__ == "__main__":
    for page in sys.argv[1:] or PAGES:
        PAGES[page]()
