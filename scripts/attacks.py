#!/usr/bin/env python3
"""Runs the tests that tests/attacks.toml names, and prints the cases tried and passed by class."""

import argparse
import json
import os
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = re.compile(r"^---- (\S+) stdout ----$")
RESULT = re.compile(r"^test (\S+)(?: - should panic)? \.\.\. (ok|FAILED|ignored)")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="verify that each test exists, and run none")
    arguments = parser.parse_args()
    ledger = tomllib.loads((ROOT / "tests/attacks.toml").read_text())
    rows = [
        (section, name, [said] if isinstance(said, str) else said)
        for section, entries in ledger.items()
        for name, said in entries.items()
    ]
    binaries = build()
    wanted, faults = defaultdict(set), []
    for section, name, said in rows:
        if not said:
            faults.append(f"{section}: {name}: neither tests nor a reason for none")
        for test in filter(is_test, said):
            binary, _, path = test.partition("::")
            if path in binaries.get(binary, {}).get("tests", ()):
                wanted[binary].add(path)
            else:
                faults.append(f"{section}: {name}: there is no test {test}")
    if faults:
        sys.exit("\n".join(faults))
    if arguments.check:
        print(f"{sum(map(len, wanted.values()))} tests for {len(rows)} rows: all exist")
        return
    counts = {}
    for binary, tests in wanted.items():
        for path, count in run(binaries[binary], sorted(tests)).items():
            counts[f"{binary}::{path}"] = count
    sys.exit(report(rows, counts))


def is_test(said):
    return not said.startswith(("pending: ", "not applicable: "))


def build():
    """Builds all tests; the binaries by name, each with its file, its folder and its tests."""
    command = ["cargo", "test", "--workspace", "--locked", "--no-run", "--message-format=json"]
    built = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True)
    binaries = {}
    for message in map(json.loads, built.stdout.splitlines()):
        if message.get("reason") != "compiler-artifact" or not message.get("executable"):
            continue
        if not message["profile"]["test"]:
            continue
        listed = subprocess.run(
            [message["executable"], "--list", "--format", "terse"], stdout=subprocess.PIPE, check=True, text=True
        )
        tests = {line.removesuffix(": test") for line in listed.stdout.splitlines() if line.endswith(": test")}
        name = message["target"]["name"].replace("-", "_")
        # The library and the binary of one name: what either has.
        folder = Path(message["manifest_path"]).parent
        if name not in binaries or len(tests) > len(binaries[name]["tests"]):
            binaries[name] = {"file": message["executable"], "folder": folder, "tests": tests}
    return binaries


def run(binary, tests):
    """Runs these tests; for each how many cases were tried and passed."""
    print(f"running {len(tests)} tests of {Path(binary['file']).name}", file=sys.stderr)
    environment = os.environ | {"CARGO_MANIFEST_DIR": str(binary["folder"])}
    command = [binary["file"], "--exact", "--show-output", *tests]
    ran = subprocess.run(command, cwd=binary["folder"], env=environment, stdout=subprocess.PIPE, text=True)
    passed, cases, told, at = {}, defaultdict(int), defaultdict(list), None
    for line in ran.stdout.splitlines():
        if found := RESULT.match(line):
            passed[found[1]] = found[2] == "ok"
        elif found := OUTPUT.match(line):
            at = found[1]
        elif at and line in ("successes:", "failures:"):
            at = None
        elif at:
            told[at].append(line)
            if line.startswith("case "):
                cases[at] += 1
            elif line.startswith("cases "):
                cases[at] += int(line.split()[1])
    counts = {}
    for test in tests:
        tried = cases[test] or 1
        # A test ends with the first case that fails.
        counts[test] = (tried, tried if passed.get(test) else tried - 1)
        if not passed.get(test):
            lines = [line for line in told[test] if not line.startswith("case ")]
            print(f"FAILED {test}", *lines[:12], sep="\n    ", file=sys.stderr)
    return counts


def report(rows, counts):
    width = max(len(name) for _, name, _ in rows)
    failed, section, pending = False, None, 0
    for row_section, name, said in rows:
        if row_section != section:
            section = row_section
            print(f"\n{section}")
        tests = list(filter(is_test, said))
        tried, passed = (sum(counts[test][at] for test in tests) for at in (0, 1))
        reasons = [reason for reason in said if not is_test(reason)]
        pending += any(reason.startswith("pending") for reason in reasons)
        figures = f"{passed:>6} of {tried:>6} cases, {len(tests)} tests" if tests else ""
        print(f"  {name:<{width}}  " + "; ".join(filter(None, [figures, *reasons])))
        failed |= passed < tried
    tried, passed = (sum(count[at] for count in counts.values()) for at in (0, 1))
    print(f"\n{passed} of {tried} cases passed, in {len(counts)} tests, {len(rows)} rows, {pending} of them pending")
    return failed


main()
