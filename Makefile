# Everything a developer or a test machine needs; `make help` lists it.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
KAFKA := deploy/kafka
KAFKA_VERSION := $(shell sed -n 's/.*<kafka.version>\(.*\)<.*/\1/p' $(KAFKA)/pom.xml)

# Each step leaves a stamp, so that a second `make setup` does nothing.
PACKAGES := $(VENV)/packages.stamp
PROJECT := $(VENV)/project.stamp
COMPILED := $(VENV)/compiled.stamp
JARS := $(KAFKA)/target/jars.stamp
CLASSES := $(KAFKA)/target/classes.stamp

DEMO_OUTPUT := demo-output

.PHONY: help
help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(COMPILED) $(CLASSES)  ## Make everything ready to run: packages in .venv, the broker's jars, compiled counting

.PHONY: demo
demo: setup  ## Count a simulated scan through a real Kafka; pictures and the file are left in demo-output
	$(BIN)/stemstream run sim:48x48 --output $(DEMO_OUTPUT) --background 40 --xray 2000 --pictures

.PHONY: test
test: setup  ## Run all tests (some of them: make test ARGS="tests/counting -k plateau")
	$(BIN)/python -m pytest $(ARGS)

.PHONY: lint
lint: setup  ## Check style, types, and who imports whom
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: bench
bench: setup  ## Measure all, side by side with stempy: an hour (single ones: make bench ARGS="--only stages")
	$(BIN)/python -m benchmarks $(ARGS)

.PHONY: bench-quick
bench-quick: setup  ## The same on small scans, most of it once, in minutes: shows that all of it works
	$(BIN)/python -m benchmarks --quick $(ARGS)

MINUTES := 10
.PHONY: soak
soak: setup  ## Random scans and kills for a while (make soak MINUTES=60 SEED=1)
	$(BIN)/python -m tests.faults.soak --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

.PHONY: lock
lock: $(PACKAGES)  ## Pin the packages of pyproject.toml again (newest versions: make lock UPGRADE=1)
	$(BIN)/python scripts/lock_requirements.py $(if $(UPGRADE),--upgrade)

.PHONY: clean
clean:  ## Remove what these targets made; topics and files of scans stay
	rm -rf $(VENV) $(KAFKA)/target $(DEMO_OUTPUT) build *.egg-info
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Asked each time, not only once: Java may have been removed since, and the question costs a tenth of a second.
.PHONY: system-packages
system-packages:
	@PYTHON="$(PYTHON)" scripts/install-system-packages.sh

$(PACKAGES): requirements-dev.txt | system-packages
	"$$(PYTHON="$(PYTHON)" scripts/find-python.sh)" -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	touch $@

# Editable, and without asking the index for anything: what it needs is there, pinned.
$(PROJECT): pyproject.toml $(PACKAGES)
	$(BIN)/python -m pip install -qq --disable-pip-version-check --no-index --no-deps --no-build-isolation -e .
	touch $@

# The machine code is kept beside the sources; without this the first scan would wait for the compiler.
$(COMPILED): $(PROJECT) $(wildcard counting/*.py)
	$(BIN)/python -c "import counting; counting.warm_up()"
	touch $@

# Moved into place when complete, so that a jar that is there means that all of them are.
$(JARS): $(KAFKA)/pom.xml | system-packages
	if [ ! -e $(KAFKA)/target/libs/kafka_2.13-$(KAFKA_VERSION).jar ]; then \
	    rm -rf $(KAFKA)/target; \
	    mvn -q -B -ntp -Dstyle.color=never --strict-checksums -f $(KAFKA)/pom.xml \
	        dependency:copy-dependencies -Dlibs=target/libs.partial; \
	    mv $(KAFKA)/target/libs.partial $(KAFKA)/target/libs; \
	fi
	touch $@

# A start of the broker takes half the time with it.
$(CLASSES): $(JARS) $(PROJECT) $(KAFKA)/server.properties stemstream/broker.py
	$(BIN)/python scripts/archive_kafka_classes.py
	touch $@
