#!/usr/bin/env bash
# Finds the functions that the four processes run at rest (callgrind) and writes src/linux/resting.ld, by which
# release builds on Linux lay them beside each other. tools/resting.sh [PROGRAM-WITH-SYMBOLS], about two minutes.
# Worth it when what the processes do at rest has changed: names that are no more do no harm.
set -euo pipefail
cd "$(dirname "$0")/.."
for tool in valgrind callgrind_control nm; do
    command -v "$tool" >/dev/null || { echo "$tool is needed (valgrind, binutils)" >&2; exit 1; }
done
program=${1:-}
if [ -z "$program" ]; then
    CARGO_PROFILE_RELEASE_STRIP=none cargo build --release --locked --target-dir target/resting
    program=target/resting/release/halton-meter
fi
program=$(realpath "$program")

work=$(mktemp -d)
export HALTON_METER_HOME="$work/home" HOME="$work"
mkdir "$work/home"
read -r edge api < <(python3 -c 'import socket
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(one.getsockname()[1] for one in held))')
printf '[edge]\nport = %s\n[daemon]\napi_port = %s\n' "$edge" "$api" >"$work/home/config.toml"
valgrind --tool=callgrind --dump-instr=yes --compress-pos=no --callgrind-out-file="$work/out.%p" --trace-children=yes \
    "$program" supervise >"$work/log" 2>&1 &
root=$!
trap '"$program" edge stop >/dev/null 2>&1 || kill "$root"; wait "$root" || true; rm -rf "$work"' EXIT

for _ in $(seq 60); do
    sleep 1
    if "$program" status 2>/dev/null | grep -q '^METERING'; then break; fi
done
declare -A pids
for name in edge daemon watchdog; do
    pids[$name]=$("$program" status | awk -v name="$name" '$1 == name { print $3 }')
done
pids[root]=$root
sleep 15
for pid in "${pids[@]}"; do callgrind_control -z "$pid" >/dev/null 2>&1; done
sleep 60
for pid in "${pids[@]}"; do callgrind_control -d "$pid" >/dev/null 2>&1; done
for name in "${!pids[@]}"; do mv "$work/out.${pids[$name]}.1" "$work/$name.callgrind"; done

python3 tools/resting.py "$program" "$work"/*.callgrind >"$work/resting.ld"
cp "$work/resting.ld" src/linux/resting.ld
wc -l src/linux/resting.ld
