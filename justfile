# The commands that people type; `just` alone lists them. Each is one line that also works without just.

# List the commands
default:
    @just --list --unsorted

# Run the Pod on bare processes, until Ctrl-C
demo *flags:
    cargo demo {{flags}}

# Everything that must hold with Rust alone
test *filter:
    cargo test {{filter}}

# One crate's tests, such as `just one web-server`
one crate *filter:
    cargo test --package {{crate}} {{filter}}

# Format, lints and documentation, as CI asks for them
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" cargo doc --workspace --no-deps

# Licences, duplicates and sources of all dependencies
deny:
    cargo deny check bans licenses sources

# Format
fmt:
    cargo fmt --all

# The three binaries, small and fast, in target/release
release:
    cargo build --release --package file-puller --package web-server --package log-agent

# The code's own documentation, in a browser
doc:
    cargo doc --workspace --no-deps --open

# What the running Pod says of itself
status:
    for port in 9877 9878 9879; do curl -s localhost:$port/status; done

# The lesson's question
info:
    curl -s localhost:9876/info

# Sync now instead of at the next period
sync:
    curl -s -X POST localhost:9878/sync

# All that CI runs
ci:
    .ci/run
