#!/usr/bin/env bash
# A storm of failures over mixed traffic against the release binary (docs/fail-open.md).
# usage: tools/chaos.sh [SEED] [SECONDS]   (a new seed each time; 180 s)
set -euo pipefail
cd "$(dirname "$0")/.."

cargo build --locked --release --bin halton-meter
HALTON_METER_TEST_BINARY="${CARGO_TARGET_DIR:-$PWD/target}/release/halton-meter"
CHAOS_SEED="${1:-$(date +%s)}"
CHAOS_SECONDS="${2:-180}"
export HALTON_METER_TEST_BINARY CHAOS_SEED CHAOS_SECONDS
# Without a test of that name cargo is content.
cargo test --locked --quiet --test chaos -- --exact storm --nocapture |
  awk '{ print; fflush() } /^test result: ok\. 1 passed/ { ran = 1 }
    END { if (!ran) { print "chaos: no storm has passed" >"/dev/stderr"; exit 1 } }'
