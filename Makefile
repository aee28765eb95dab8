# make demo: the shipped policy on 20 unseen episodes, two that are watched, one through ROS 2.
# make test: linters, types and the test suite.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CHECKPOINT ?= checkpoints/pusht_image
MONITOR ?= checkpoints/pusht_monitor
WATCHED := monitor=$(MONITOR) n_episodes=1 seed=100020 videos=1 num_workers=0 task.max_episode_steps=100
JOBS ?= 2

.PHONY: setup demo test clean

setup: $(VENV)/.ready

# torch goes first and alone: asked for by another package, pip may take a much larger build of it.
$(VENV)/.ready: requirements.txt setup.py
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed, found " + sys.version.split()[0] + "; name one with PYTHON=python3.11")'
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $$(grep '^torch==' requirements.txt)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

demo: setup
	$(BIN)/vla-eval $(CHECKPOINT) n_episodes=20 seed=100000 out=outputs/demo
	@echo "one more episode, in which the block is teleported and the monitor holds the arm, and the same one undisturbed"
	$(BIN)/vla-eval $(CHECKPOINT) $(WATCHED) disturbance.kind=block_teleport out=outputs/demo/teleport
	$(BIN)/vla-eval $(CHECKPOINT) $(WATCHED) out=outputs/demo/nominal
	@echo "and one through the ROS 2 graph, each node a process"
	@if $(BIN)/python -c 'import rclpy' 2>/dev/null; \
	then $(BIN)/vla-sim $(CHECKPOINT) monitor=$(MONITOR) seed=100000 max_steps=150 out=outputs/demo/ros; \
	else echo "no rclpy: there are wheels of it for Linux on x86-64 with Python 3.11 to 3.13"; fi

test: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n $(JOBS) -m "not dds"
	$(BIN)/python -m pytest -m dds

clean:
	rm -rf build outputs *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
