# make setup   the virtual environment, the locked dependencies, the broker's jars (safe to repeat)
# make test    lint, types, import rules and all tests, on real servers
# make nightly the tests that take minutes; make chaos: those of them that kill and freeze things
# make test-docker  builds the images and runs docker/compose.yaml on a Docker engine of its own (as root, on Debian)
# make bench-ingress  the ingress beside other servers, in ten minutes (needs wrk and Go)
# make bench-streams  the streams beside other engines, in twelve minutes
# make bench-sinks    the sinks beside other writers, in twelve minutes
# make bench-end-to-end  from the POST to the row, beside what one writes by hand, in seven minutes
# make demo    everything with a made-up project in it, until Ctrl-C
# make up      everything with nothing in it, until Ctrl-C; data stays in var/

PYTHON ?= python3.11
BIN := .venv/bin
STAMP := .venv/.setup
CASEWIRE := $(BIN)/casewire
DEMO_DIR := var/demo

.PHONY: setup test nightly chaos test-docker bench-ingress bench-streams bench-sinks bench-end-to-end demo up format lock schemas clean

setup: $(STAMP)

$(STAMP): requirements.lock pyproject.toml docker/kafka/pom.xml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	$(BIN)/python -c "from casewire.broker import fetch_jars; fetch_jars()"
	touch $@

test: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/coverage erase
	$(BIN)/pytest --cov

nightly: setup
	tests/containers/install
	$(BIN)/pytest -m nightly -o faulthandler_timeout=900

chaos: setup
	$(BIN)/pytest --no-cov -m "" -o faulthandler_timeout=900 --durations=0 tests/chaos

test-docker: setup
	tests/containers/install
	$(BIN)/pytest --no-cov -m nightly -o faulthandler_timeout=900 --durations=0 tests/containers

bench-ingress: setup
	$(BIN)/python -m benchmarks.ingress

bench-streams: setup
	$(BIN)/python -m benchmarks.streams

bench-sinks: setup
	$(BIN)/python -m benchmarks.sinks

bench-end-to-end: setup
	$(BIN)/python -m benchmarks.end_to_end

demo: setup
	rm -rf $(DEMO_DIR)
	CASEWIRE_DATA_DIR=$(DEMO_DIR) $(CASEWIRE) up --demo

up: setup
	$(CASEWIRE) up

format: setup
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

lock:
	$(BIN)/uv pip compile pyproject.toml --extra files --extra tracing --group dev --generate-hashes --universal --python-version 3.11 -o requirements.lock
	$(BIN)/uv pip compile pyproject.toml --extra files --extra tracing -c requirements.lock --generate-hashes --universal --python-version 3.11 -o docker/requirements.lock
	echo hatchling | $(BIN)/uv pip compile - -c requirements.lock --generate-hashes --universal --python-version 3.11 -o docker/build.lock

schemas: setup
	$(BIN)/python -m schemas.publish
	$(BIN)/python -m tests.examples.published

# Leaves var/, where the data of `make up` is.
clean:
	rm -rf .venv docker/*/libs $(DEMO_DIR) .coverage* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
