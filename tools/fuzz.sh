#!/usr/bin/env bash
# Fuzzes the decoders on the stable toolchain, with libFuzzer.
#
#   tools/fuzz.sh [TARGET…] [SECONDS]   each of them (all, if none is named) for so long (60)
#   tools/fuzz.sh --long [TARGET…]      runs the corpora with each input repeated to 256 KiB
#   tools/fuzz.sh --shrink [TARGET…]    what was found into fuzz/corpus, as little as covers as much
#   tools/fuzz.sh --build | --list
#
# What is found grows in fuzz/work; what fails is in fuzz/artifacts. Time and executions are added to
# fuzz/hours.tsv. HALTON_FUZZ_WRAP is put before each run (nice, flock), HALTON_FUZZ_PROGRAM is run
# instead of building one. Ends with 1 if any failed.
set -euo pipefail
cd "$(dirname "$0")/.."

host=$(rustc -vV | awk '/^host:/{print $2}')
program=${HALTON_FUZZ_PROGRAM:-fuzz/target/$host/fuzz/fuzz}
hours=fuzz/hours.tsv
read -ra wrap <<<"${HALTON_FUZZ_WRAP:-}"

build() {
  # What cargo-fuzz asks a nightly compiler for, less the sanitizer: what parses input has no
  # unsafe code (CONTRIBUTING.md says where there is some).
  local pass=(-Cpasses=sancov-module --cfg=fuzzing) option
  for option in level=4 inline-8bit-counters pc-table trace-compares; do
    pass+=("-Cllvm-args=-sanitizer-coverage-$option")
  done
  RUSTFLAGS="${pass[*]}" cargo build --quiet --locked --manifest-path fuzz/Cargo.toml --profile fuzz --target "$host"
}

fuzzer() { # TARGET OPTION…
  HALTON_FUZZ=$1 "${wrap[@]}" "$program" "-artifact_prefix=fuzz/artifacts/$1-" -rss_limit_mb=768 -timeout=30 "${@:2}"
}

dictionary() { # TARGET
  case $1 in
    exchange | connection | turns | scan | sse | prices) echo "-dict=fuzz/dict/json" ;;
    head | gate | answers | headers | http1) echo "-dict=fuzz/dict/heads" ;;
    places | config | macos | processes | lines | redact | hpack | http2) echo "-dict=fuzz/dict/$1" ;;
  esac
}

run() { # TARGET LONGEST SECONDS
  local log=fuzz/work/$1.log code=0 executed took TIMEFORMAT='%U %S'
  took=$( { time fuzzer "$1" "-max_len=$2" "-max_total_time=$3" -print_final_stats=1 $(dictionary "$1") \
    "fuzz/work/$1" "fuzz/corpus/$1" >"$log" 2>&1; } 2>&1) || code=$?
  executed=$(awk '/^stat::number_of_executed_units/{print $2}' "$log")
  # Of a core: beside other work, or under a wrap, it waits. One that failed counts for nothing.
  took=$(awk -v code="$code" '{print code ? 0 : int($1 + $2)}' <<<"$took")
  note "$1" "${executed:-0}" "${took:-0}"
  printf '%-12s %9s runs %4s s  %s\n' "$1" "${executed:-0}" "${took:-0}" "$(awk '/ cov: /{at=$0} END{sub(/^#[0-9]+[ \t]+[A-Za-z]+ +/,"",at); sub(/ lim:.*/,"",at); print at}' "$log")"
  [ "$code" -eq 0 ] || { tail -n 40 "$log" | grep -vE '^(stat|==)' >&2; return 1; }
}

# Adds to what the target has had in all.
note() { # TARGET EXECUTIONS SECONDS
  exec 9>fuzz/work/hours.lock
  flock 9 2>/dev/null || true # where there is none, one at a time
  local commit new
  commit=$(git rev-parse --short HEAD)
  new=$(awk -v t="$1" -v n="$2" -v s="$3" -v c="$commit" 'BEGIN{FS=OFS="\t"}
    $1==t{$2+=n; $3+=s; $4=c; seen=1} {print} END{if(!seen) print t,n,s,c}' "$hours")
  { head -n 1 <<<"$new"; tail -n +2 <<<"$new" | sort; } >"$hours.new"
  mv "$hours.new" "$hours"
  exec 9>&-
}

shrink() { # TARGET LONGEST
  local small=fuzz/work/$1.small
  rm -rf "$small"
  mkdir -p "$small"
  # Nothing big or slow goes into the tests.
  fuzzer "$1" -set_cover_merge=1 -max_len=$(($2 < 4096 ? $2 : 4096)) "$small" "fuzz/corpus/$1" "fuzz/work/$1" >"fuzz/work/$1.log" 2>&1
  python3 tools/fuzz-corpus.py "$small" "fuzz/corpus/$1"
  rm -rf "$small"
}

mode=run
case ${1:-} in
  --*) mode=${1#--}; shift ;;
esac
seconds=60
names=()
for word in "$@"; do
  case $word in
    *[!0-9]*) names+=("$word") ;;
    *) seconds=$word ;;
  esac
done

[ -n "${HALTON_FUZZ_PROGRAM:-}" ] || build
[ "$mode" != build ] || exit 0
list=$(HALTON_FUZZ=list "$program" 2>/dev/null)
[ "$mode" != list ] || { echo "$list"; exit 0; }
mkdir -p fuzz/artifacts
[ -e "$hours" ] || printf 'target\texecutions\tseconds\tcommit\n' >"$hours"
failed=0
while read -r name longest; do
  [ ${#names[@]} -eq 0 ] || [[ " ${names[*]} " == *" $name "* ]] || continue
  mkdir -p "fuzz/work/$name" "fuzz/corpus/$name"
  case $mode in
    run) run "$name" "$longest" "$seconds" </dev/null || failed=1 ;;
    long)
      HALTON_FUZZ_REPEAT=262144 fuzzer "$name" -runs=0 -max_len=262144 -timeout=120 "fuzz/corpus/$name" \
        >"fuzz/work/$name.log" 2>&1 </dev/null || { echo "$name: see fuzz/work/$name.log" >&2; failed=1; }
      ;;
    shrink) shrink "$name" "$longest" </dev/null ;;
    *) echo "fuzz: no such option: --$mode" >&2; exit 2 ;;
  esac
done <<<"$list"
exit "$failed"
