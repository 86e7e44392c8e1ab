#!/bin/sh
# Installs what is missing: each argument is COMMAND:DEBIAN_PACKAGE. Uses apt where it may, and
# otherwise names what is missing and fails.
set -eu

PATH="$PATH:/usr/sbin:/sbin"
# Debian keeps PostgreSQL's server, a folder for each version, where no PATH leads.
for folder in /usr/lib/postgresql/*/bin; do
    PATH="$PATH:$folder"
done
missing=""
for pair in "$@"; do
    command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair##*:}"
done
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null 2>&1; then
    echo "Please install:$missing" >&2
    exit 1
fi
if [ "$(id -u)" -eq 0 ]; then
    as_root=""
elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
    as_root="sudo"
else
    echo "Please run: sudo apt-get install --no-install-recommends$missing" >&2
    exit 1
fi
echo "Installing:$missing" >&2
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086
$as_root apt-get update -qq
# shellcheck disable=SC2086
$as_root apt-get install -y -qq --no-install-recommends $missing >/dev/null
