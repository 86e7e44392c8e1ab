#!/bin/sh
# cargo deny: licences, bans, sources and duplicates always; advisories where their database can be
# fetched.
set -eu

command -v cargo-deny >/dev/null 2>&1 || cargo install --locked --quiet cargo-deny
cargo deny --all-features check licenses bans sources

if cargo deny fetch db >/dev/null 2>&1; then
    cargo deny --all-features check advisories
else
    echo "advisories: not checked, the advisory database cannot be fetched from here" >&2
fi
