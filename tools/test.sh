#!/bin/sh
# All tests. Installs what they need: cargo-nextest, if it is missing, and the real clients. What could
# not be checked on this machine is shown at the end (and left in target/not-checked).
# usage: tools/test.sh [nextest arguments, e.g. a filter]
set -eu
cd "$(dirname "$0")/.."

# First: it says what is missing before anything is built.
tools/clients.sh
if ! cargo nextest --version >/dev/null 2>&1; then
  echo "test: installing cargo-nextest" >&2
  cargo install --quiet --locked cargo-nextest
fi
# Each test adds its lines (tests/support/programs.rs): nextest keeps what a passing one prints to itself.
mkdir -p target
HALTON_NOT_CHECKED=$PWD/target/not-checked
export HALTON_NOT_CHECKED
: >"$HALTON_NOT_CHECKED"
code=0
# Of which most tests take two (.config/nextest.toml): they wait for a process or a deadline most of the time.
threads=$(($(getconf _NPROCESSORS_ONLN) * 3))
cargo nextest run --profile ci --locked --test-threads "$threads" "$@" || code=$?
sort -u -o "$HALTON_NOT_CHECKED" "$HALTON_NOT_CHECKED"
sed 's/^/NOT CHECKED here: /' "$HALTON_NOT_CHECKED"
exit "$code"
