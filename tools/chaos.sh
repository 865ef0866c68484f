#!/bin/sh
# A storm of failures over mixed traffic against the release binary (docs/fail-open.md).
# usage: tools/chaos.sh [SEED] [SECONDS]   (a new seed each time; 180 s)
set -eu
cd "$(dirname "$0")/.."

cargo build --locked --release --bin halton-meter
HALTON_METER_TEST_BINARY="${CARGO_TARGET_DIR:-$PWD/target}/release/halton-meter"
CHAOS_SEED="${1:-$(date +%s)}"
CHAOS_SECONDS="${2:-180}"
export HALTON_METER_TEST_BINARY CHAOS_SEED CHAOS_SECONDS
cargo test --locked --quiet --test chaos -- --exact storm --nocapture
