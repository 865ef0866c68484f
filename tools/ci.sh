#!/usr/bin/env bash
# Everything that CI checks, in the order in which it fails fastest. `just ci` and .ci/run call this.
set -euo pipefail
cd "$(dirname "$0")/.."
# Nothing is built twice from changed files, and nobody reads a debugger's tables here: less to write.
export CARGO_INCREMENTAL=0 CARGO_PROFILE_DEV_DEBUG=0

step() { printf '\n== %s (after %s s)\n' "$*" "$SECONDS"; }

# Waits for the network most of its time; the tests, which are last, ask for it again.
mkdir -p target
tools/clients.sh >target/clients.log 2>&1 &
installing=$!

step format
cargo fmt --check
# Beside the steps up to its own, in a directory that no other locks: for minutes it is one thread's work.
cargo build --locked --release >target/release.log 2>&1 &
building=$!
trap 'kill "$building" "$installing" 2>/dev/null || true' EXIT

step clippy
cargo clippy --locked --all-targets -- -D warnings
step documentation
RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" cargo doc --locked --no-deps --document-private-items --quiet

step dependencies
tools/deny.sh
# The fuzz targets have a lock file of their own; it must follow.
cargo metadata --locked --format-version 1 --manifest-path fuzz/Cargo.toml >/dev/null

step prices
# The data is what the sources say; `pricing check`, below, says whether they agree.
# 3 = the sources can't be fetched: said, not passed over.
python3 tools/pricebook.py --check && prices=checked || {
  code=$?
  [ "$code" -eq 3 ] || exit "$code"
  prices='NOT CHECKED'
}

# 3 = the mirror has no library source for this compiler: said, not passed over.
macos=()
for_macos() {
  tools/macos-check.sh "$@" && macos+=("$1: checked") || {
    local code=$?
    [ "$code" -eq 3 ] || exit "$code"
    macos+=("$1: NOT CHECKED")
  }
}
step 'macOS: lints of all targets'
for_macos clippy --locked --all-targets -- -D warnings
step 'macOS: externs and layouts against the system'
for_macos externs
step 'macOS: a linked program'
for_macos link --locked --bin halton-meter

step systemd
# The tests that need it are among the integration tests, and pass where it is missing.
tools/user-systemd.sh true && systemd=checked || {
  code=$?
  [ "$code" -eq 3 ] || exit "$code"
  systemd='NOT CHECKED'
}

step release
wait "$building" || { cat target/release.log; exit 1; }
target=${CARGO_TARGET_DIR:-$PWD/target}
release=$target/release/halton-meter
size=$(stat -c %s "$release" 2>/dev/null || stat -f %z "$release")
echo "binary: $((size / 1024)) KiB (limit 20480)"
[ "$size" -le $((20 * 1024 * 1024)) ]
# Faults on request (src/supervisor/faults.rs) are for debug builds; that it would be found is checked
# with one, below.
if grep -q HALTON_METER_FAULTS "$release"; then exit 1; fi
step 'price sources'
home=$(mktemp -d)
HALTON_METER_HOME=$home "$release" pricing check
rm -r "$home"

step bench
# Fails on a lost request or row, never on a time; but where others keep the machine busy, a connection
# may go by that the daemon had no quarter of a second for. Not twice.
HALTON_BENCH_PROFILE=dev tools/bench.sh --smoke || {
  echo 'bench: once more'
  HALTON_BENCH_PROFILE=dev tools/bench.sh --smoke
}

step chaos
tools/chaos.sh 1 30

step tests
wait "$installing" || { cat target/clients.log; exit 1; }
# The corpora of the fuzz targets among them; the search itself is `just fuzz`.
tools/test.sh
grep -q HALTON_METER_FAULTS "$target/debug/halton-meter" || {
  echo "the debug build does not name what no release build may" >&2
  exit 1
}
# 3 = only the reduced suite of clients is installed: said, not passed over.
tools/clients.sh --check && clients='full suite' || {
  code=$?
  [ "$code" -eq 3 ] || exit "$code"
  clients='reduced suite, the others NOT CHECKED (just clients)'
}

step benches
# Once each, unoptimised: that they run, not how fast.
cargo test --locked --quiet --bench micro --bench ledger

printf '\nprices: %s\nsystemd: %s\nclients: %s\nmacOS:\n' "$prices" "$systemd" "$clients"
printf '  %s\n' "${macos[@]}"
# By the tests (tools/test.sh), whose own last lines are far above by now.
sed 's/^/NOT CHECKED here: /' target/not-checked
