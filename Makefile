# make demo: the shipped policy under 20 instructions, the one for a single goal watched twice, one episode through ROS 2.
# make test: linters, types and the test suite.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CHECKPOINT ?= checkpoints/pusht_language
ONE_GOAL ?= checkpoints/pusht_image
MONITOR ?= checkpoints/pusht_monitor
WATCHED := $(ONE_GOAL) monitor=$(MONITOR) n_episodes=1 seed=100020 videos=1 num_workers=0 scene.max_episode_steps=100
JOBS ?= 2
# Neighbours stay together, and share what their module prepares.
WORKERS = -n $(JOBS) --dist worksteal

.PHONY: setup demo test clean

setup: $(VENV)/.ready

# torch goes first and alone: asked for by another package, pip may take a much larger build of it.
# pip is silent while it unpacks, so a line every 8 seconds says that it works.
PIP = (while sleep 8 >/dev/null 2>&1; do echo "installing: $$(du -sm $(VENV) | cut -f1) MB so far"; done) & \
	trap "kill $$!" EXIT; $(BIN)/python -m pip install --quiet --disable-pip-version-check

$(VENV)/.ready: requirements.txt pyproject.toml setup.py
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed, found " + sys.version.split()[0] + "; name one with PYTHON=python3.11")'
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	@$(PIP) $$(grep '^torch==' requirements.txt)
	@$(PIP) -r requirements.txt
	@$(PIP) --no-deps -e .
	touch $@

demo: setup
	$(BIN)/vla-eval $(CHECKPOINT) scene=pusht_language n_episodes=20 seed=100000 out=outputs/demo
	@echo "the policy for one goal: the block is teleported and the monitor holds the arm, and the same episode undisturbed"
	$(BIN)/vla-eval $(WATCHED) disturbance.kind=block_teleport out=outputs/demo/teleport
	$(BIN)/vla-eval $(WATCHED) out=outputs/demo/nominal
	@echo "and one episode with an instruction through the ROS 2 graph, each node a process"
	@if $(BIN)/python -c 'import rclpy' 2>/dev/null; \
	then $(BIN)/vla-sim $(CHECKPOINT) scene=pusht_language seed=100000 out=outputs/demo/ros; \
	else echo "no rclpy: there are wheels of it for Linux on x86-64 with Python 3.11 to 3.13"; fi

test: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@echo "types beside the tests, then what talks over DDS in real time, each worker in a domain of its own"
	@$(BIN)/mypy & types=$$!; $(BIN)/python -m pytest $(WORKERS) -m "not dds"; tests=$$?; wait $$types && exit $$tests
	$(BIN)/python -m pytest $(WORKERS) -m dds

clean:
	rm -rf build outputs *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
