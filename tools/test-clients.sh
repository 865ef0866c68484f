#!/bin/sh
# The full suite of real clients: installs all of them (2 GB), runs them through the product against the
# test origin, and fails where one is missing. docs/clients.md has its results.
# usage: tools/test-clients.sh [nextest arguments]
set -eu
cd "$(dirname "$0")/.."
tools/clients.sh --all
HALTON_CLIENTS_ALL=1 cargo nextest run --profile ci --locked --test it \
  -E 'test(/^(clients|cli_tools|sdks|sockets)::/)' "$@"
