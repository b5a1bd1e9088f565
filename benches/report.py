"""A benchmark's results as JSON, in benches/results/, from which benches/charts.py draws the documents' pictures.

Cases that a run leaves out keep the figures that the file has of them, with the date and the commit of the run that measured them.
"""

import datetime
import json
import os
import pathlib
import re
import subprocess

REPO = pathlib.Path(__file__).resolve().parent.parent


class Report:
    def __init__(self):
        self.rows = []

    def record(self, case, metric, unit, ours, peers=None, peer=None, goal=None):
        """Notes a figure. With the name of a peer, the goal is for the ratio to it; otherwise for the figure itself."""
        peers = peers or {}
        ratio = round(ours / peers[peer], 3) if peers.get(peer) else None
        rounded = {name: round(value, 4) for name, value in peers.items()}
        self.rows.append({"case": case, "metric": metric, "unit": unit, "ours": round(ours, 4), "peers": rounded, "ratio": ratio, "goal": goal})

    def write(self, path, rounds):
        try:
            before = json.loads(path.read_text())
        except (OSError, ValueError):
            before = {"results": []}
        new = {(row["case"], row["metric"]) for row in self.rows}
        cpu = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
        commit = subprocess.run(["git", "-C", REPO, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
        of = {"date": datetime.date.today().isoformat(), "commit": commit}
        # A file of before each row said it for itself.
        of_before = {key: before.get(key) for key in of}
        kept = [of_before | row for row in before["results"] if (row["case"], row["metric"]) not in new]
        document = {
            "machine": {"cpu": cpu[1] if cpu else "unknown", "cores": os.cpu_count(), "kernel": os.uname().release},
            **of,
            "rounds": rounds,
            "results": kept + [of | row for row in self.rows],
        }
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
