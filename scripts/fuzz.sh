#!/bin/sh
# Runs each fuzz target (or those that are named) for FUZZ_SECONDS, one after the other, from the small
# corpora in fuzz/corpus; what is found goes to fuzz/found and is not kept. A finding fails the run.
set -eu

seconds="${FUZZ_SECONDS:-60}"
cd "$(dirname "$0")/.."

command -v cargo-fuzz >/dev/null 2>&1 || cargo install --locked --quiet cargo-fuzz

# The crates under test have no unsafe code, so that no sanitizer is paid for; overflows and debug
# assertions are checked. No input needs ten seconds, nor a gigabyte.
failed=""
for target in ${*:-$(cargo fuzz list)}; do
    echo "== $target, $seconds s"
    mkdir -p "fuzz/found/$target"
    dictionary=""
    [ "$target" = token ] && dictionary="-dict=fuzz/tokens.dict"
    # shellcheck disable=SC2086
    cargo fuzz run --sanitizer none "$target" "fuzz/found/$target" "fuzz/corpus/$target" -- \
        -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -max_len=2048 -print_final_stats=1 \
        -verbosity=0 $dictionary || failed="$failed $target"
done
[ -z "$failed" ] || { echo "Findings in:$failed; the inputs are in fuzz/artifacts" >&2; exit 1; }
