"""A network namespace of its own for a benchmark: its loopback has no packet filter.

The rules that Docker and others leave on a machine's loopback cost each packet time, and hide what differs between the programs that
are measured.
"""

import os
import shutil
import sys


def add_argument(parser):
    parser.add_argument("--network", choices=["own", "shared"], default="own", help="whose loopback: %(default)s")


def enter(arguments, *more):
    """Runs this program again in such a namespace, with these flags added, unless it is in one already. Needs root, or a kernel that
    lets users have namespaces. Nothing can be installed there, so that is to be done before."""
    if arguments.network != "own":
        return
    for tool in ("unshare", "ip"):
        if not shutil.which(tool):
            sys.exit(f"{tool} is missing: --install gets it, or --network shared does without")
    again = [one for one in [sys.executable, *sys.argv] if one != "--install"]
    namespace = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--net", "--map-root-user"]
    os.execvp("unshare", [*namespace, "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *again, *more, "--network", "shared"])
