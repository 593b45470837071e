# Two commands: `make demo` and `make test`. PYTHON is any Python 3.11 to 3.13.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
OUT ?= out/demo

.PHONY: demo gallery test test-fast check docs format env clean embedded shapes directed directed-on-a-gpu
.DEFAULT_GOAL := demo

env: $(VENV)/.installed

# torch comes first and alone: an exact version, so that an index with a CPU build gives that one.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $$(grep '^torch==' constraints.txt)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: env  ## render the example manifest on the embedded default and show where to look
	$(BIN)/rushes render examples/prompts.jsonl --out $(OUT) --yes
	@echo "open $(OUT)/contact-sheet.png"

gallery: env  ## one clip a capability on the models that ship, and a sheet to look at
	$(BIN)/python examples/gallery.py out/gallery/rows
	$(BIN)/rushes render out/gallery/rows/gallery.jsonl --out out/gallery/clips --yes
	@echo "open out/gallery/clips/contact-sheet.png"

test: env  ## everything, in two processes (tests/parts.py)
	$(BIN)/python -m pytest -n 2 --durations=25 --durations-min=5

test-fast: env  ## the fast set
	$(BIN)/python -m pytest -n 2 -m "not slow"

check: env  ## lint, types, the import rule, the documentation: what it names is there, the site is built strictly
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_architecture.py tests/test_docs.py

docs: env  ## the documentation as a site, in build/site
	$(BIN)/python -m rushes.reference
	$(BIN)/python -m properdocs build --strict
	@echo "open build/site/index.html"

format: env
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

embedded: shapes directed  ## train all that ships with trained weights

shapes: env  ## train the model of 64 pixels: hours on a CPU, minutes on a GPU
	$(BIN)/python -m training all --work out/shapes

directed: env  ## train the model that obeys every condition, and measure it: a day on a CPU
	$(BIN)/python -m training.directed all --work out/directed --out out/directed/models
	$(BIN)/python -m benchmarks.directed_quality out/directed/models/directed --steps 16 --guidance 3 \
		--sheet out/directed/sheet.png

directed-on-a-gpu: env  ## the same in a quarter of an hour
	$(BIN)/python -m training.directed codec --work out/directed
	$(BIN)/python -m training.directed.accelerated --compile --work out/directed --folders out/directed/models
	$(BIN)/python -m benchmarks.directed_quality out/directed/models/directed --steps 16 --guidance 3 \
		--sheet out/directed/sheet.png

clean:
	rm -rf out build *.egg-info
