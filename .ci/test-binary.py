#!/usr/bin/env python3
"""Prints the program of one integration test, built with the features that `cargo test` has: .ci/test-binary.py PACKAGE TEST

For suites that run some of its tests as another user or in a namespace, where cargo itself has nothing to do. As `cargo test`
builds it, so that no crate is built once more with other features.
"""

import json
import subprocess
import sys

package, test = sys.argv[1:]
command = ["cargo", "test", "--locked", "--no-run", "--message-format=json-render-diagnostics"]
for line in subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout.splitlines():
    message = json.loads(line)
    if message["reason"] == "compiler-artifact" and message["executable"] and message["target"]["name"] == test:
        if f"/{package}#" in message["package_id"]:
            print(message["executable"])
            break
else:
    sys.exit(f"test-binary.py: no test {test} in {package}")
