# Everything that a developer or CI does has a target here.
VENV   ?= .venv
RUN    := $(VENV)/bin/
PYTEST := $(RUN)pytest
# Tests wait for mounts more than they work.
WORKERS ?= $(shell expr 2 '*' $$(nproc))

.DEFAULT_GOAL := help
.PHONY: help
help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# bootstrap touches the stamp last, and does nothing else when nothing has changed.
$(VENV)/.ready: pyproject.toml scripts/dev-requirements.txt scripts/bootstrap
	@scripts/bootstrap

.PHONY: setup hooks format lint types architecture security check
setup: $(VENV)/.ready  ## install what is missing: system packages, .venv, locked dependencies
hooks: setup  ## run the quick checks at each commit
	$(RUN)pre-commit install
format: setup  ## rewrite files in house format
	$(RUN)ruff format .
	$(RUN)ruff check --fix-only .
lint: setup  ## format, lint and lock file, changing nothing
	$(RUN)ruff format --check .
	$(RUN)ruff check .
	$(RUN)python scripts/check_lock.py
types: setup  ## mypy, strict
	$(RUN)mypy src tests scripts
architecture: setup  ## the floors: who may import whom, how long a module may be
	$(PYTEST) -q tests/test_architecture.py
security: setup  ## bandit over the code, known vulnerabilities of the locked dependencies
	$(RUN)bandit --quiet --recursive --configfile pyproject.toml src
	@# Scripts call tools by name, with fixed arguments, and throw dice for tests.
	$(RUN)bandit --quiet --recursive --skip B101,B311,B404,B603,B607 scripts
	$(RUN)python scripts/check_advisories.py
check: lint types architecture security  ## what must pass before a commit, in a minute

.PHONY: test test-fast coverage
test: setup  ## all tests, WORKERS at once; without /dev/fuse the mounted ones are skipped and counted
	$(PYTEST) -q -n $(WORKERS) -m "not alone"; \
		together=$$?; $(PYTEST) -q -m alone && exit $$together
test-fast: setup  ## what needs no mount and little time
	$(PYTEST) -q -n $(WORKERS) -m "not mounted and not slow"
coverage: setup  ## branch coverage of the tests that run in process
	$(RUN)coverage run -m pytest -q -m "not mounted"
	$(RUN)coverage report

.PHONY: bench soak crash conformance
bench: setup  ## ctrfs beside rclone, sshfs, s3fs and curl: RTT=0,20,real TASKS= PEERS= RUNS=3
	scripts/bootstrap --bench
	$(RUN)python -m scripts.bench --runs $(or $(RUNS),3) $(if $(RTT),--rtt $(RTT)) \
		$(if $(TASKS),--tasks $(TASKS)) $(if $(PEERS),--peers $(PEERS))
soak: setup  ## mixed load with failures for MINUTES (10), WRITE=through: is all flat, nothing lost
	$(RUN)python -m scripts.soak --minutes $(or $(MINUTES),10) --write $(or $(WRITE),through)
crash: setup  ## kill the daemon at every pass of every point, and KILLS (500) times at random
	CRASH_KILLS=$(or $(KILLS),500) CRASH_SEED=$(or $(SEED),1) $(PYTEST) tests/crash
conformance: setup  ## outside suites on a mount, WRITE=through; installs what they need
	scripts/bootstrap --conformance
	$(RUN)python -m scripts.conformance --write $(or $(WRITE),through)

.PHONY: demo serve lock build clean
demo: setup  ## mount a local service, work in it with ordinary tools, unmount
	scripts/demo
serve: setup  ## the local Containers API service on http://127.0.0.1:8400
	$(RUN)ctrfs serve --listen 127.0.0.1:8400
lock: setup  ## write scripts/dev-requirements.txt anew from pyproject.toml
	scripts/lock
build: setup  ## wheel and source archive in dist/
	PYTHON=$(RUN)python scripts/with-tool build python -m build --outdir dist .
clean:  ## remove what the targets made
	rm -rf $(VENV) dist build src/ctrfs.egg-info .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache
