#!/usr/bin/env bash
# Licences, bans and sources of the dependency tree; advisories too, where their database can be had.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! cargo deny --version >/dev/null 2>&1; then
  # Its own profile optimises across all crates, which takes longer than all that it will ever check here.
  CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_OPT_LEVEL=1 \
    CARGO_PROFILE_RELEASE_DEBUG=0 cargo install --quiet --locked cargo-deny
fi
cargo deny --locked --log-level error check bans licenses sources
if timeout 120 cargo deny --locked --log-level error check advisories; then
  echo "advisories: checked"
elif cargo deny --locked fetch db >/dev/null 2>&1; then
  echo "advisories: FAILED" >&2
  exit 1
else
  echo "advisories: NOT CHECKED, their database can't be reached from here"
fi
