# make demo   sets everything up and runs the main job on the built-in data
# make test   sets everything up, checks style, runs the tests
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STUDY ?= configs/chest_xray.yaml
# auto: as many as there are cores and memory for, see tests/conftest.py; 0 runs the tests one after the other.
WORKERS ?= auto
# A file stays on one process, because its tests share what was expensive to make. In the order of the folders the long files of
# tests/stages start before the short ones of the later folders; xdist's own order would start the files with few but long tests last.
PARALLEL := -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: demo test test-long bench-reading bench-views bench-monitor bench-memory bench-step bench-growth bench-statistics bench-grid lint format install clean

# The stamp is newer than pyproject.toml once everything that it asks for is installed.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("medssl needs Python 3.11 or newer; set PYTHON=/path/to/python3.11") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --progress-bar on -e '.[dev]'
	touch $@

install: $(VENV)/.installed

demo: install
	$(BIN)/medssl pretrain --config $(STUDY)
	$(BIN)/medssl finetune --config $(STUDY)
	$(BIN)/medssl evaluate --config $(STUDY)
	$(BIN)/medssl compare --config $(STUDY)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# A test computes on one thread (tests/conftest.py), so one worker a core; the tests of a file share what they set up.
test: lint
	$(BIN)/python -m pytest $(PARALLEL)

test-long: install
	$(BIN)/python -m pytest $(PARALLEL) -m long

# Speed, side by side with peers in one run; about ten minutes.
bench-reading: install
	$(BIN)/python benchmarks/reading.py

# Views, side by side with lightly, MONAI and kornia in one run; about eight minutes.
bench-views: install
	$(BIN)/python -m pip install --quiet -e '.[bench]'
	$(BIN)/python benchmarks/views.py

# What the collapse monitor costs, as a share of a training step; about five minutes.
bench-monitor: install
	$(BIN)/python benchmarks/monitor.py

# What a SimTriplet step keeps in memory, by stem and with gradient checkpointing; about five minutes.
bench-memory: install
	$(BIN)/python benchmarks/memory.py

# The whole of pretraining beside its bare step, and beside lightly from files on disk; about forty minutes.
bench-step: install
	$(BIN)/python -m pip install --quiet -e '.[bench]'
	$(BIN)/python benchmarks/step.py --lightly-workers 1 2

# What a pretraining costs before its first step, up to a million images; about six minutes, 3 GB of disk.
bench-growth: install
	$(BIN)/python benchmarks/growth.py

# Bootstrap replicates and DeLong beside scikit-learn in a loop; about one minute.
bench-statistics: install
	$(BIN)/python benchmarks/intervals.py

# What the grid of linear probes costs beside its feature passes, on kermany_cxr; about three minutes.
bench-grid: install
	$(BIN)/python benchmarks/grid.py

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) runs .pytest_cache .ruff_cache
