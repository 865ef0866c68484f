#!/bin/sh
# Installs the real clients that the integration tests drive (SDKs, Claude Code, Go) into a cache
# outside git. Versions stand in tests/clients/. Quick when nothing changed.
# usage: tools/clients.sh            HALTON_CLIENTS_DIR moves the cache (default: target/clients)
set -eu
cd "$(dirname "$0")/.."
dir=${HALTON_CLIENTS_DIR:-target/clients}
mkdir -p "$dir"
say() { echo "clients: $*" >&2; }
# A stamp holds the specification that is installed: equal means nothing to do.
fresh() { [ -f "$dir/$1.stamp" ] && cmp -s "$2" "$dir/$1.stamp"; }

if ! fresh python tests/clients/requirements.txt; then
  say "installing the Python SDKs"
  rm -rf "$dir/python"
  python3 -m venv "$dir/python"
  "$dir/python/bin/python" -m pip install --quiet --disable-pip-version-check \
    -r tests/clients/requirements.txt
  cp tests/clients/requirements.txt "$dir/python.stamp"
fi

if ! fresh node tests/clients/package.json; then
  say "installing the Node SDK and Claude Code"
  rm -rf "$dir/node"
  mkdir -p "$dir/node"
  cp tests/clients/package.json "$dir/node/"
  # No package scripts: the platform package of Claude Code carries the program as it is.
  (cd "$dir/node" && npm install --silent --no-audit --no-fund --no-package-lock --ignore-scripts)
  cp tests/clients/package.json "$dir/node.stamp"
fi

if ! command -v go >/dev/null 2>&1; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    say "installing Go"
    apt-get -qq update && apt-get -qq install --yes --no-install-recommends golang-go >/dev/null
  else
    say "Go is missing: the Go part of the certificate test will say that it was not checked"
  fi
fi

# Sets the clock of a process for tests/it/clock.rs.
if [ "$(uname)" = Linux ] && ! ls /usr/lib/*/faketime/libfaketimeMT.so.1 >/dev/null 2>&1; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    say "installing faketime"
    apt-get -qq update && apt-get -qq install --yes --no-install-recommends faketime >/dev/null
  else
    say "faketime is missing: the test of clock steps will say that it was not checked"
  fi
fi

if command -v go >/dev/null 2>&1 && ! fresh go tests/clients/tls_get.go; then
  GOCACHE=${GOCACHE:-$(cd "$dir" && pwd)/go-cache} go build -o "$dir/tls_get_go" tests/clients/tls_get.go
  cp tests/clients/tls_get.go "$dir/go.stamp"
fi
