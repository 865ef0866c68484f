#!/usr/bin/env bash
# Instructions per unit of each micro-benchmark (benches/micro), by callgrind: what a busy machine
# does not change. tools/bench-count.sh [NAME...]
set -euo pipefail
cd "$(dirname "$0")/.."
command -v valgrind >/dev/null || { echo "valgrind is needed" >&2; exit 1; }
program=$(cargo bench --bench micro --no-run --message-format=json |
    python3 -c 'import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("executable"):
        print(message["executable"])')

# Of so many runs; two numbers of runs, so that what is done once does not count.
count() {
    valgrind --tool=callgrind --callgrind-out-file=/dev/null "$program" --count "$1" "$2" 2>&1 |
        sed -n 's/.*Collected : //p'
}

"$program" --list-units | while read -r name units unit; do
    if [ $# -gt 0 ] && [[ " $* " != *" $name "* ]]; then continue; fi
    few=$(count "$name" 2)
    many=$(count "$name" 6)
    python3 -c "print(f'{\"$name\":<20}{($many - $few) / 4 / $units:>14,.1f} instructions/$unit')"
done
