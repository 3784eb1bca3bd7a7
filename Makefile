# Needs Rust, Python >= 3.10 and make; everything else is installed under build/.

PYTHON ?= python3
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# Where cargo keeps the sources of crates: no part of what is built.
export CARGO_HOME ?= $(HOME)/.cargo

# Of kernels that are in one crate, linking them as a whole makes nothing better, but takes minutes.
QUICKLY := CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16

ENV := build/env
SOURCES := Cargo.toml Cargo.lock pyproject.toml README.md $(wildcard LICENSE* licenses/*) \
	$(shell find src python -name '*.rs' -o -name '*.py' -o -name '*.pyi' -o -name py.typed)

.PHONY: help demo connections test test-rust test-python test-parallel check bench bench-compare \
	exhaustive docs docs-rust site tutorials wheel check-wheel sdist matrix reproducible licenses \
	api-snapshot \
	asan tsan valgrind dev fault fuzz fuzz-python clean
# One at a time: each step uses all cores, and its output reads in order.
.NOTPARALLEL:

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(ENV)/demo.wheel  ## Fit handwritten digits with crossent, NumPy and SciPy
	$(ENV)/demo/bin/python examples/digits.py --out build/digits.png

connections: $(ENV)/demo.wheel  ## Write docs/connections.md and its figures
	$(ENV)/demo/bin/python examples/connections.py --out docs

test: test-rust test-python  ## Run every test, of Rust and of Python

test-rust:  ## Run the tests of the Rust core
	$(QUICKLY) cargo test --release

# Processes, between which tests are shared: references compute on one thread.
WORKERS ?= 2
test-python: $(ENV)/test.wheel  ## Run the tests of the package, against torch and mpmath (WORKERS=2)
	$(ENV)/test/bin/python -m pytest --numprocesses=$(WORKERS) --dist=worksteal

# Those that set nothing of which the process has one (threads, signals, the precision of mpmath).
PARALLEL := refusals options inputs layouts

test-parallel: $(ENV)/test.wheel  ## Run each test of values by four threads at once
	$(ENV)/test/bin/python -m pytest --parallel-threads=4 $(PARALLEL:%=tests/test_%.py)

check: $(ENV)/check.wheel build/sdist docs  ## Check format, lints, types, stubs, docs, licences, workflows
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo clippy --locked --all-targets --features python -- -D warnings
	cargo clippy --locked --all-targets $(FUZZ) -- -D warnings
	$(ENV)/check/bin/ruff check
	$(ENV)/check/bin/ruff format --check
	$(ENV)/check/bin/mypy
	$(ENV)/check/bin/python -m mypy.stubtest crossent._core crossent.functional crossent.modules \
		--mypy-config-file pyproject.toml
	$(PYTHON) tools/third_party.py --check
	$(PYTHON) tools/check_sources.py build/sdist/*.tar.gz
	$(ENV)/check/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(ENV)/check/bin/zizmor --offline --quiet --persona pedantic .github

bench: $(ENV)/bench.env $(ENV)/test.wheel  ## Measure everything and write docs/performance.md (QUICK=1: less)
	cargo bench
	$(ENV)/test/bin/python benches/accuracy.py
	CROSSENT_SIMD=avx2 $(ENV)/test/bin/python benches/peers.py --peers torch $(if $(QUICK),--quick)
	CROSSENT_SIMD=baseline $(ENV)/test/bin/python benches/peers.py --peers torch $(if $(QUICK),--quick)
	$(ENV)/test/bin/python benches/page.py $(if $(QUICK),--quick)

bench-compare: $(ENV)/test.wheel  ## Compare the speed of this tree with that of a commit: BASE=<commit>
	@git rev-parse --quiet --verify "$(BASE)^{commit}" > /dev/null || \
		{ echo "usage: make bench-compare BASE=<commit>"; exit 2; }
	rm -rf build/compare && mkdir -p build/compare/source
	git archive "$(BASE)" | tar -x -C build/compare/source
	cd build/compare/source && CARGO_TARGET_DIR=../../compare-target \
		../../../$(ENV)/wheel/bin/maturin build --release --locked --out ../dist
	$(ENV)/test/bin/python -m pip install --quiet --no-deps --target build/compare/base build/compare/dist/*.whl
	$(ENV)/test/bin/python -m pip install --quiet --no-deps --target build/compare/this dist/*.whl
	$(ENV)/test/bin/python benches/compare.py build/compare/base build/compare/this

exhaustive:  ## Check exp and log1p on every float32 (minutes)
	cargo test --release --lib exhaustive -- --ignored --nocapture

# Memory, threads and fuzzing: docs/reliability.md. Sanitizers are unstable options of a stable compiler,
# and take a target, so that build scripts are not built with them.
HOST = $(shell rustc -vV | sed -n 's/^host: //p')
SANITIZED = RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$(CURDIR)/build/$@ RUSTFLAGS="$(1)" $(QUICKLY)
FUZZ := --manifest-path fuzz/Cargo.toml

asan: CALLS ?= 2000
# A test asks for more than there can be, and for an error.
asan: export ASAN_OPTIONS := allocator_may_return_null=1
asan:  ## Run the Rust tests, and random calls, under AddressSanitizer (CALLS=2000)
	$(call SANITIZED,-Zsanitizer=address) cargo test --release --lib --tests --target $(HOST)
	$(call SANITIZED,-Zsanitizer=address) CROSSENT_FUZZ_CALLS=$(CALLS) \
		cargo test --release $(FUZZ) --target $(HOST)

# With a standard library that is instrumented, too: what it synchronises would look like races.
tsan: BUILT := cargo test --release -Zbuild-std
tsan:  ## Run what threads share under ThreadSanitizer (needs `rustup component add rust-src`)
	$(call SANITIZED,-Zsanitizer=thread) $(BUILT) --lib --target $(HOST) -- pool span
	$(call SANITIZED,-Zsanitizer=thread) $(BUILT) $(FUZZ) --test threads --target $(HOST)

valgrind: CALLS ?= 100
valgrind:  ## Run threads, and random calls, under valgrind with AVX2 (CALLS=100)
	CROSSENT_SIMD=avx2 CARGO_TARGET_DIR=build/valgrind \
		CARGO_TARGET_$(shell echo $(HOST) | tr a-z- A-Z_)_RUNNER="valgrind --quiet --error-exitcode=1" \
		CROSSENT_FUZZ_CALLS=$(CALLS) \
		cargo test --release $(FUZZ) --target $(HOST)

SECONDS ?= 60
COVERED := -Zsanitizer=address -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
	-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
	-Cllvm-args=-sanitizer-coverage-trace-compares
fuzz:  ## Fuzz the Rust core against references of its own, SECONDS=60 for each of two targets
	$(call SANITIZED,$(COVERED)) cargo build --release $(FUZZ) --features libfuzzer --bins \
		--target $(HOST)
	$(PYTHON) fuzz/run.py build/fuzz/$(HOST)/release $(SECONDS)

fuzz-python: $(ENV)/test.wheel  ## Fuzz the package against long double: SECONDS=60
	$(ENV)/test/bin/python tests/fuzz.py $(SECONDS) build/fuzz-python

# An extension that was not optimised as a whole, for PYTHONPATH.
SITE = $(QUICKLY) CARGO_TARGET_DIR=build/$@ cargo build --release --locked --lib --features $(1) && \
	rm -rf build/$@/site && mkdir -p build/$@/site && cp -r python/crossent build/$@/site && \
	cp build/$@/release/libcrossent.so build/$@/site/crossent/_core.abi3.so

dev:  ## Build the extension without what takes minutes, in build/dev/site for PYTHONPATH
	$(call SITE,python)

fault: $(ENV)/test.env  ## Build an extension that can panic on demand, and see that Python survives it
	$(call SITE,fault)
	PYTHONPATH=build/fault/site $(ENV)/test/bin/python tests/fault.py

docs: docs-rust site  ## Build the documentation: of Rust in target/doc, and the site

docs-rust:  ## Build the Rust documentation in target/doc
	RUSTDOCFLAGS=-Dwarnings cargo doc --no-deps --document-private-items

site: $(ENV)/docs.env $(ENV)/test.wheel  ## Build the site in build/site; every warning is an error
	$(ENV)/test/bin/python -m sphinx -q --fail-on-warning --keep-going -c docs/site \
		-d build/cache/sphinx docs build/site

tutorials: $(ENV)/test.wheel  ## Run the examples, and keep what they print and draw for the site
	$(ENV)/test/bin/python tools/tutorials.py

wheel: build/wheel.stamp  ## Build the wheel in dist/

check-wheel: build/wheel.stamp $(ENV)/release.env  ## Check what is in the wheel, and what it needs and exports
	$(ENV)/release/bin/python tools/check_wheel.py dist/*.whl

sdist: build/sdist  ## Package the sources, for pip and for cargo, and build from both (minutes)
	$(PYTHON) tools/check_sources.py --build build/sdist/*.tar.gz
	CARGO_PROFILE_DEV_DEBUG=0 cargo package --locked

matrix: build/wheel.stamp  ## Try the wheel in fresh environments: every Python, oldest and newest NumPy
	$(PYTHON) tools/matrix.py $(ALL) dist/*.whl

# The second build has another depth, another name, and its crates from another place.
COPIES := build/reproducible/here build/reproducible/there/and-further
# Named otherwise, as `make -n` runs what says MAKE, here in folders that it has not made. The copies'
# requirements, which are as old as the commit, make the environment no older.
IN_COPY = $(MAKE) --assume-old="$(CURDIR)/$(ENV)/wheel.env"
reproducible: $(ENV)/wheel.env  ## Build the wheel of HEAD in two places; compare every bit (10 minutes)
	rm -rf build/reproducible
	for copy in $(COPIES); do mkdir -p $$copy && git archive HEAD | tar -x -C $$copy || exit; done
	cargo fetch --locked --quiet
	mkdir build/reproducible/cargo && ln -s "$(CARGO_HOME)"/* build/reproducible/cargo
	$(IN_COPY) -C $(word 1,$(COPIES)) wheel ENV="$(CURDIR)/$(ENV)"
	$(IN_COPY) -C $(word 2,$(COPIES)) wheel ENV="$(CURDIR)/$(ENV)" \
		CARGO_HOME="$(CURDIR)/build/reproducible/cargo"
	$(PYTHON) tools/compare_wheels.py $(addsuffix /dist/*.whl,$(COPIES))

licenses:  ## Write licenses/: the crates of a wheel, their licences and texts
	$(PYTHON) tools/third_party.py

api-snapshot: $(ENV)/test.wheel  ## Accept the public names and signatures of this tree (tests/api.txt)
	$(ENV)/test/bin/python tests/test_api.py

clean:  ## Remove everything that was built
	rm -rf build dist .hypothesis
	find benches examples python tests -name __pycache__ -prune -exec rm -rf {} +
	cargo clean

.PHONY: build/sdist
build/sdist: $(ENV)/wheel.env
	rm -rf $@
	$(ENV)/wheel/bin/maturin sdist --out $@

# Stamps: the wheel, an environment with its requirements, and that environment with the wheel.

# Where the standard library's sources are installed, rustc writes their place instead of /rustc.
REMAP_STD = --remap-path-prefix=$(shell rustc --print sysroot)/lib/rustlib/src/rust=/rustc

build/wheel.stamp: $(SOURCES) $(ENV)/wheel.env
	rm -rf dist
	RUSTFLAGS="$(RUSTFLAGS) --remap-path-prefix=$(CARGO_HOME)=cargo $(REMAP_STD)" \
		$(ENV)/wheel/bin/maturin build --release --locked --compression-level 9 --out dist
	mkdir -p $(@D) && touch $@

$(patsubst %,$(ENV)/%.env,wheel demo test check release): $(ENV)/%.env: requirements/%.txt
	$(PYTHON) -m venv --clear $(ENV)/$*
	$(ENV)/$*/bin/python -m pip install --quiet --requirement requirements/$*.txt
	touch $@

$(ENV)/test.env $(ENV)/check.env: requirements/demo.txt

# The peers, and what builds the site, join the environment of the tests: torch is large, and one
# copy of it enough.
$(ENV)/bench.env $(ENV)/docs.env: $(ENV)/%.env: requirements/%.txt $(ENV)/test.env
	$(ENV)/test/bin/python -m pip install --quiet --requirement requirements/$*.txt
	touch $@

$(patsubst %,$(ENV)/%.wheel,demo test check): $(ENV)/%.wheel: $(ENV)/%.env build/wheel.stamp
	$(ENV)/$*/bin/python -m pip install --quiet --force-reinstall --no-deps dist/*.whl
	touch $@
