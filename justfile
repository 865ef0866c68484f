# Short ways to what tools/ holds; `just --list` shows them.

# Everything CI checks
ci:
    tools/ci.sh

# The tests, with the clients they need
test:
    tools/test.sh

# The full suite of real clients, which it installs (2 GB); CI runs a part of it
clients *ARGS:
    tools/test-clients.sh {{ARGS}}

# Unit tests only
unit *FILTER:
    cargo nextest run --lib {{FILTER}}

# A storm of failures over live traffic, against the release binary
chaos *SEED_SECONDS:
    tools/chaos.sh {{SEED_SECONDS}}

# What it costs, beside baselines (--smoke: a minute; --only tap,faults; --json FILE)
bench *ARGS:
    tools/bench.sh {{ARGS}}

# Micro-benchmarks of the hot pieces; `just bench-micro sse` only some
bench-micro *FILTER:
    cargo bench --bench micro -- {{FILTER}}

# Their instructions by unit, which a busy machine does not change
bench-count *NAMES:
    tools/bench-count.sh {{NAMES}}

# Which functions run at rest: laid beside each other by build.rs (needs valgrind)
resting:
    tools/resting.sh

# Reports over a ledger of so many rows
bench-report ROWS="1000000":
    cargo bench --bench ledger -- report {{ROWS}}

# The ledger under a steady load; none may be lost
soak SECONDS="600" RATE="2000":
    cargo bench --bench ledger -- soak {{SECONDS}} {{RATE}}

fmt:
    cargo fmt

lint:
    cargo clippy --all-targets -- -D warnings

# Type-check for macOS on Linux
macos:
    tools/macos-check.sh clippy --all-targets -- -D warnings

# Link a Mach-O executable on Linux
macos-link:
    tools/macos-check.sh link --bin halton-meter

# The price data is what the sources say, and they agree with each other
prices:
    python3 tools/pricebook.py --check
    cargo run --locked --quiet -- pricing check

# Fuzz all decoders, or those named, for so many seconds each (60)
fuzz *ARGS:
    tools/fuzz.sh {{ARGS}}
