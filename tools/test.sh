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
cargo nextest run --profile ci --locked "$@"
[ $# -gt 0 ] || cargo test --locked --doc --quiet
