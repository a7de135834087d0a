PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint bench

# The environments differ only in what is installed; constraints.txt pins what was tested.
$(VENV)/demo: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[examples]'
	touch $@

$(VENV)/dev: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
# tfmot asks for absl-py<2 (with it TensorFlow 2.21 and numpy 2 do resolve); the tests that
# compare with it run with absl-py 2.
	$(BIN)/python -m pip install --quiet --no-deps -c constraints.txt \
		tensorflow-model-optimization tf_keras dm-tree
	touch $@

demo: $(VENV)/demo
	$(BIN)/keras-lottery find --rounds=18 --controls=reinitialize,random_mask
	$(BIN)/keras-lottery export --format=saved_model --measure

test: $(VENV)/dev
	$(BIN)/python -m pytest -n 2

lint: $(VENV)/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/dev
	$(BIN)/python benchmarks/import_time.py
	$(BIN)/python benchmarks/round_end.py
	$(BIN)/python benchmarks/fit_overhead.py
	$(BIN)/python benchmarks/tfmot_overhead.py
	$(BIN)/python benchmarks/tfmot_search.py
	$(BIN)/python benchmarks/search.py
	$(BIN)/python benchmarks/subset_sum.py
	$(BIN)/python benchmarks/edge_popup.py
	$(BIN)/python benchmarks/compact.py
	$(BIN)/python benchmarks/saved_model.py
