#!/bin/sh
# Installs the real clients that the integration tests drive into a cache outside git. Versions stand
# in tests/clients/. Quick when nothing changed.
# usage: tools/clients.sh            what every run of the tests needs: SDKs, Claude Code, Codex, Go
#        tools/clients.sh --all      the full suite too: Gemini CLI, opencode, Copilot CLI, aider, llm,
#                                    more SDKs, Java (2 GB)
#        tools/clients.sh --check    says which of these are missing (exit 3)
#        tools/clients.sh --prune    removes what the files in tests/clients/ no longer ask for
# HALTON_CLIENTS_DIR moves the cache (default: target/clients).
set -eu
cd "$(dirname "$0")/.."
dir=${HALTON_CLIENTS_DIR:-target/clients}
mkdir -p "$dir"
specs=tests/clients
say() { echo "clients: $*" >&2; }

# A set is a directory whose `spec` equals the file that asks for it. Worktrees that share the cache
# and ask for different versions have a set each; none is ever changed.
installed() {
  for found in "$dir"/*/spec; do
    if cmp -s "$specs/$1" "$found"; then return 0; fi
  done
  return 1
}
# make SPEC COMMAND: the command gets the new directory. The spec is written last: no spec, no set.
make() {
  installed "$1" && return 0
  say "installing $1"
  # Where it stays: the environments of Python hold their own path.
  new=$(mktemp -d "$(cd "$dir" && pwd)/$(basename "${1%.*}")-XXXXXX")
  if "$2" "$specs/$1" "$new"; then
    cp "$specs/$1" "$new/spec"
  else
    rm -rf "$new"
    return 1
  fi
}

python_set() {
  python3 -m venv "$2" &&
    "$2/bin/python" -m pip install --quiet --disable-pip-version-check -r "$1"
}
node_set() {
  cp "$1" "$2/package.json"
  # No package scripts: the platform packages carry the programs as they are.
  (cd "$2" && npm install --silent --no-audit --no-fund --no-package-lock --ignore-scripts)
}
go_set() {
  GOCACHE=${GOCACHE:-$(cd "$dir" && pwd)/go-cache} go build -o "$2/program" "$1"
}
# package NAME PROGRAM: Debian's, where there may be one. It is no failure: the tests that need the
# program say so.
no_packages=
package() {
  if command -v "$2" >/dev/null 2>&1; then return 0; fi
  if [ -z "$no_packages" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    say "installing $1"
    apt-get -qq update &&
      DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends "$1" >/dev/null &&
      return 0
    # Without a network the next one would wait as long.
    no_packages=1
  fi
  say "$2 is missing: the tests that need it will say that they were not checked"
}
# What can't be had here and no test can do without: all of it in one line.
needs() {
  lacking=
  python3 -c 'import ensurepip, venv' >/dev/null 2>&1 || lacking="$lacking, python3 with venv"
  { command -v node && command -v npm; } >/dev/null 2>&1 || lacking="$lacking, node with npm"
  command -v curl >/dev/null 2>&1 || lacking="$lacking, curl"
  [ -n "$lacking" ] || return 0
  say "the tests need what is not installed here: ${lacking#, }"
  exit 69
}

prune() {
  for found in "$dir"/*/spec; do
    used=
    for spec in $specs/*.json $specs/*.txt $specs/*.go $specs/full/*; do
      if cmp -s "$spec" "$found"; then used=1; fi
    done
    if [ -z "$used" ]; then
      say "removing ${found%/spec}"
      rm -rf "${found%/spec}"
    fi
  done
}

check() {
  missing=
  for spec in requirements.txt package.json axios.json messages.go tls_get.go full/requirements.txt \
    full/package.json full/aider.txt full/llm.txt; do
    installed "$spec" || missing="$missing $spec"
  done
  command -v keytool >/dev/null 2>&1 || missing="$missing java"
  [ -z "$missing" ] && return 0
  say "NOT CHECKED without tools/clients.sh --all:$missing"
  return 3
}

case ${1:-} in
  '' | --all) ;;
  --check) check; exit ;;
  --prune) prune; exit ;;
  *) sed -n '4,9s/^# *//p' "$0" >&2; exit 64 ;;
esac

needs
make requirements.txt python_set
make package.json node_set
make axios.json node_set
package golang-go go
if command -v go >/dev/null 2>&1; then
  make tls_get.go go_set
  make messages.go go_set
fi
# For tests/it/shells.rs; bash is everywhere.
package zsh zsh
package fish fish
# Sets the clock of a process for tests/it/clock.rs.
if [ "$(uname)" = Linux ] && ! ls /usr/lib/*/faketime/libfaketimeMT.so.1 >/dev/null 2>&1; then
  package faketime faketime
fi

if [ "${1:-}" = --all ]; then
  make full/requirements.txt python_set
  make full/package.json node_set
  make full/aider.txt python_set
  make full/llm.txt python_set
  package default-jdk-headless keytool
fi
