#!/bin/sh
# All tests. Installs what they need: cargo-nextest, if it is missing, and the real clients.
# usage: tools/test.sh [nextest arguments, e.g. a filter]
set -eu
cd "$(dirname "$0")/.."

if ! cargo nextest --version >/dev/null 2>&1; then
  echo "test: installing cargo-nextest" >&2
  cargo install --quiet --locked cargo-nextest
fi
tools/clients.sh
# Many of them wait for a process or a deadline most of the time.
threads=$(($(getconf _NPROCESSORS_ONLN) * 3 / 2))
cargo nextest run --profile ci --locked --test-threads "$threads" "$@"
[ $# -gt 0 ] || cargo test --locked --doc --quiet
