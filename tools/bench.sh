#!/bin/sh
# The end-to-end bench against the release binary (docs/performance.md).
# usage: tools/bench.sh [--smoke] [--rounds N] [--only CASE,..] [--json FILE]
set -eu
cd "$(dirname "$0")/.."

target="${CARGO_TARGET_DIR:-$PWD/target}"
if [ -z "${HALTON_METER_BIN:-}" ]; then
  cargo build --locked --release --bin halton-meter
  # cargo bench builds a program of its own in that place, with the features of the tests.
  mkdir -p "$target/bench"
  cp -f "$target/release/halton-meter" "$target/bench/halton-meter"
  HALTON_METER_BIN="$target/bench/halton-meter"
fi
export HALTON_METER_BIN
# With dev the bench itself (client, origin, baselines) is not optimised, and quickly built: whether
# everything works shows as well, ratios do not.
exec cargo bench --locked --profile "${HALTON_BENCH_PROFILE:-bench}" --bench e2e -- "$@"
