# Shortcuts. Every recipe is a thin call to cargo or to .ci/run, so nothing needs `just`.

# List the recipes.
default:
    @just --list

# Format everything.
fmt:
    cargo fmt --all

# What a commit must pass first.
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings

# The tests; those that the host cannot run say so and pass.
test *ARGS:
    cargo test --workspace --locked {{ARGS}}

# The tests in parallel processes, with cargo-nextest.
nextest *ARGS:
    cargo nextest run --workspace --locked {{ARGS}}

# The tests, failing where one cannot run here.
test-all *ARGS:
    TOKA_REQUIRE_PRIVILEGED=1 cargo test --workspace --locked {{ARGS}}

# The documentation, without warnings.
doc:
    RUSTDOCFLAGS=-Dwarnings cargo doc --workspace --no-deps --locked

# Licences, advisories and bans, with cargo-deny.
deny:
    cargo deny check

# The main job, on this repository.
run *ARGS:
    cargo run --release -- run agents/repository-health {{ARGS}}

# SDKs and agent programs that people use, behind Toka; downloads a gigabyte.
clients *ARGS:
    cargo build --release --locked
    tests/clients.sh target/release/toka {{ARGS}}

# Everything that CI checks.
ci:
    .ci/run

# Fuzzes one of requests, streams, declarations, messages for some seconds
fuzz TARGET SECONDS="60":
    fuzz/run {{TARGET}} {{SECONDS}}
