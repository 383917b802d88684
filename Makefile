# `make` lists what there is to do. Debian 12 and 13, Ubuntu 22.04 and 24.04 need nothing but make and Rust; the rest is fetched.

# Where rustup puts cargo, also in a shell that was opened before.
export PATH := $(or $(CARGO_HOME),$(HOME)/.cargo)/bin:$(PATH)

CARGO_DENY_VERSION := 0.20.2
SUITES ?= rust sdk e2e clients hostile deploy
# Evaluated in the recipes, after the packages are there.
FEATURES = $$(tools/cargo-features.sh)

.DEFAULT_GOAL := help
.PHONY: help run build test check bench bench-capacity bench-scaling bench-network quality styles fuzz deny packages onnxruntime cargo-deny clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: build ## Build and serve on http://127.0.0.1:8000; options of `ooblex serve` in ARGS="…"
	@cargo run --release --locked --quiet --package ooblex --bin ooblex $(FEATURES) -- serve $(ARGS)

build: packages onnxruntime ## Build target/release/ooblex
	cargo build --release --locked --package ooblex $(FEATURES)

test: packages onnxruntime ## Run all tests, as CI does; some of them with SUITES="rust sdk e2e clients hostile deploy"
	@case " $(SUITES) " in *" rust "* | *" e2e "* | *" deploy "*) tools/install-packages.sh test ;; esac
	@case " $(SUITES) " in *" e2e "* | *" deploy "*) tools/install-packages.sh browser ;; esac
	@case " $(SUITES) " in *" clients "* | *" hostile "*) tools/install-packages.sh hostile ;; esac
	@case " $(SUITES) " in *" deploy "*) tools/install-packages.sh deploy ;; esac
	@tools/test.sh $(SUITES)

check: packages ## Formatting, lints, documentation, types of the SDK: seconds when warm
	@cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 || rustup component add rustfmt clippy
	cargo fmt --all --check
	cargo clippy --release --workspace --all-targets --locked $(FEATURES) -- --deny warnings
	RUSTDOCFLAGS="--deny warnings" cargo doc --release --workspace --no-deps --locked $(FEATURES)
	@tools/types.sh
	@tools/tidy.sh
	python3 tools/cycles.py --max 3
	python3 tools/structure.py

bench: build ## What a frame costs, by stage and on its way to workers; and the latency that a browser sees
	@tools/install-packages.sh test
	cargo bench --locked --package ooblex $(FEATURES)
	@tools/install-packages.sh browser
	@export PATH="$$(tools/fetch-node.sh):$$PATH" CHROMIUM="$$(tools/find-chromium.sh)"; \
		cd tests/e2e && npm ci --no-audit --no-fund && node latency.js

quality: packages onnxruntime ## How steady and how right the effects are, before and after smoothing; of a clip with CLIP=file.y4m
	cargo run --release --locked --quiet --package ooblex-effects --example quality -- $(CLIP)

styles: packages onnxruntime ## What each style with a network of its own takes and how steady it is, beside style26: two minutes
	cargo run --release --locked --quiet --package ooblex-effects --example styles

bench-scaling: build ## How 1 to 32 workers share frames, under overload as well, and what one Redis carries: ten minutes
	@tools/install-packages.sh test
	@for what in linear single overload capacity; do cargo bench --locked --package ooblex $(FEATURES) --bench scaling -- $$what || exit; done

bench-capacity: build ## How many sessions of each effect one gateway carries, at what cost, and what is beyond: twenty minutes
	@for what in sessions knee overload greedy; do cargo bench --locked --package ooblex $(FEATURES) --bench capacity -- $$what || exit; done

bench-network: build ## What sessions make of networks that lose, narrow and fail: seven minutes
	cargo bench --locked --package ooblex $(FEATURES) --bench network -- all

fuzz: packages ## Fuzz every reader of outside bytes, FUZZ_S seconds each (60); needs a nightly compiler
	@tools/fuzz.sh

deny: cargo-deny ## Licences, origins and known weaknesses of the dependencies (fetches the advisories)
	cargo deny --locked check

packages:
	@tools/check-rust.sh
	@tools/install-packages.sh build

onnxruntime: ## Fetch ONNX Runtime into .runtime/, once
	@tools/fetch-onnxruntime.sh

cargo-deny:
	@cargo deny --version >/dev/null 2>&1 || cargo install cargo-deny --locked --version $(CARGO_DENY_VERSION)

clean: ## Remove what was built and fetched
	cargo clean
	rm -rf .runtime tests/e2e/node_modules tests/deploy/node_modules web/node_modules
