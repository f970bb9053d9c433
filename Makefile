# Every target does its own set-up on a fresh Debian machine with Python >= 3.11.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ROUNDS ?= 20
SEED ?= 1
ORDER ?= 1647953407
JOBS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)

.PHONY: venv demo test test-long check golden wheel-check coverage lock clean

venv: $(STAMP)

# torch goes first and by pip: a machine that offers its own build (CPU, CUDA, ROCm) to pip gets that one.
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' || \
	  { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq python3-venv; } || \
	  { echo "needs Python >= 3.11 with venv: PYTHON=/path/to/python3 make $@"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check uv "$$(grep '^torch==' requirements.lock)"
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m compileall -q planner jobs providers
	touch $(STAMP)

demo: venv
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python examples/demo.py

check: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The order is random, but the same every time unless ORDER says otherwise. There is one process more than cores, since
# some tests wait, unless JOBS says otherwise (0: one process), with whole files in one process each, so that a server or
# a test bed is started once.
test: venv check
	$(BIN)/python -m pytest --randomly-seed=$(ORDER) -n $(JOBS) --dist loadfile --no-loadscope-reorder

test-long: venv
	ROUNDS=$(ROUNDS) SEED=$(SEED) $(BIN)/python -m pytest -m long -o timeout=0

# Builds the wheel, installs it in an empty environment and runs the whole chain from there.
wheel-check: venv
	$(BIN)/python -m pytest -m long -o timeout=0 tests/e2e/test_wheel.py

# Branch coverage of planner/, child processes included, by its own tests and those of the commands.
coverage: venv
	rm -rf .coverage-data && mkdir .coverage-data
	$(BIN)/python -m coverage run -m pytest tests/planner tests/cli -m "not long" -n $(JOBS) --dist loadfile \
	  --randomly-seed=$(ORDER); tested=$$?; \
	$(BIN)/python -m coverage combine --quiet && \
	$(BIN)/python -m coverage report --skip-covered --skip-empty --fail-under=90 && exit $$tested

# After a change of what commands print that is meant: write tests/golden anew, then look at `git diff`.
golden: venv
	$(BIN)/python -m pytest -q tests/cli --update-golden -k "golden or as_text or screen"
	$(BIN)/python -m pytest -q tests/cli/test_golden.py

lock: venv
	$(BIN)/uv pip compile --quiet --python-version 3.11 --no-annotate --no-header --constraint requirements.lock \
	  --extra launch --extra s3 --extra schedule --extra train --extra quantised --extra data --extra report --extra notify \
	  --extra objectstore --extra hub --extra gguf --extra mlflow --extra wandb --extra tensorboard --extra reserve-gcp --extra reserve-azure --extra dev --extra test pyproject.toml --output-file requirements.lock.new
	grep -vE '^(nvidia-|cuda-|triton)' requirements.lock.new > requirements.lock && rm requirements.lock.new

clean:
	rm -rf $(VENV) .demo .bed .coverage-data dist build
