# Every target makes and fills .venv by itself. What is installed is remembered in .venv/<extra>.done.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/pip install --quiet --disable-pip-version-check
OLDEST := .venv-oldest
CODE   := led_ref backends tests notebooks docs

# The recipes' data and models; it is made, and what was begun there goes on.
WORK   ?= ../train

.PHONY: help demo test oldest fuzz check kernels peer docs browser cells bench clean data summarizer classifier answerer
help:
	@echo "make demo    set up, and let the bundled models summarize a specification, answer a question about it, and classify a text"
	@echo "make test    set up, and run the tests (no torch needed; under 6 minutes on two cores)"
	@echo "make oldest  tests of the arithmetic, the tokenizer and the files with the oldest libraries that pyproject.toml allows"
	@echo "make fuzz    damage the files of models at random, 10,000 times, and see that each is read or refused by name"
	@echo "make check   format, lint, types, layout rules, doctests, the vectors written anew, the notebooks"
	@echo "make kernels the GPU kernels under NVIDIA's compiler: spills, registers (fetches it; no GPU needed)"
	@echo "make peer    parity with transformers (fetches torch)"
	@echo "make gpu     what only a GPU can show (needs one, and CuPy in .venv)"
	@echo "make docs    the site, strictly built, with its notebooks executed"
	@echo "make browser every page of the site, the explorer, and led_ref in a real browser (after make docs; fetches one by npm)"
	@echo "make cells   the notebooks' live cells in that browser"
	@echo "make bench   speed and memory on this machine"
	@echo "make summarizer, classifier, answerer   fetch the data, and train a model into WORK=../train; goes on where it was cut off"
	@echo "make clean   remove .venv and everything generated"

demo: $(VENV)/base.done
	@$(BIN)/led-ref demo

test: $(VENV)/dev.done
	$(BIN)/pytest -n 2 --dist loadfile --ignore=tests/peer -m "not real_vocabulary and not nvrtc"
	LED_REF_HYPOTHESIS=few $(BIN)/pytest -n 2 --dist loadfile --backend stand-in tests/model tests/generation tests/oracle # in place of a GPU

oldest: $(OLDEST)/oldest.done
	LED_REF_HYPOTHESIS=few $(OLDEST)/bin/pytest -n 2 --dist loadfile -m "not real_vocabulary" tests/tokenizer tests/weights tests/model tests/generation tests/test_doctor.py

# tests/test_fuzz.py has the first 500 of these.
fuzz: $(VENV)/dev.done
	$(BIN)/python tests/fuzz/run.py --mutants 10000 --seed 20

check: $(VENV)/dev.done $(VENV)/docs.done
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest tests/test_layout.py tests/test_repository.py
	$(BIN)/pytest --doctest-modules led_ref backends/led_backends
	@rm -rf $(VENV)/vectors
	$(BIN)/led-ref vectors write $(VENV)/vectors
	diff -r $(VENV)/vectors tests/vectors/v1 # the same bytes on every machine
	$(BIN)/python docs/build_notebooks.py $(basename $(notdir $(wildcard notebooks/*.py))) # each runs to its end

kernels: $(VENV)/kernels.done
	$(BIN)/pytest tests/kernels

peer: $(VENV)/peer.done
	$(BIN)/pytest -m "peer or real_vocabulary" --durations=5

# The file's name is not one that pytest collects by itself, so that make test passes where there is no GPU.
gpu: $(VENV)/dev.done
	$(BIN)/pytest tests/gpu/on_gpu.py
	LED_REF_HYPOTHESIS=few $(BIN)/pytest --backend cupy tests/model tests/generation tests/oracle
	$(BIN)/python tests/gpu/measure.py --out $(VENV)/gpu_report.json --page $(VENV)/gpu_report.md

docs: $(VENV)/docs.done
	$(BIN)/python docs/fetch_katex.py
	$(BIN)/python docs/fetch_pyodide.py
	$(BIN)/python docs/build_live.py
	$(BIN)/python docs/build_notebooks.py
	$(BIN)/python docs/build_explorer.py
	if [ -f docs/performance.md ]; then $(BIN)/python docs/build_performance.py --picture; fi
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	$(BIN)/python docs/check_site.py

# Another browser than the fetched one: make browser BROWSER="--chromium /usr/bin/chromium"
browser: $(VENV)/browser.done
	$(BIN)/python tests/browser/check_site.py $(BROWSER)
	$(BIN)/python tests/browser/check_explorer.py --tokens 16000 $(BROWSER)
	$(BIN)/python tests/browser/check_live.py $(BROWSER)
	$(BIN)/python tests/browser/check_cells.py $(BROWSER) book/

# One of the notebooks trains a model, and Python in a browser has one thread and no BLAS.
cells: $(VENV)/browser.done
	$(BIN)/python tests/browser/check_cells.py $(BROWSER) notebooks/

bench: $(VENV)/dev.done
	$(BIN)/led-ref bench

data summarizer classifier answerer: $(VENV)/dev.done
	PYTHON=$(abspath $(BIN))/python docs/recipes/train.sh $(WORK) $@

clean:
	rm -rf $(VENV) $(OLDEST) site docs/notebooks docs/built docs/assets/katex docs/live/made dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
	rm -f docs/book/*.md docs/book/*.ipynb docs/book/.*.made_of
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/base.done: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "led-ref needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) --version). Try: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing led-ref into $(VENV) ..."
	@$(PIP) --editable .
	@touch $@

$(VENV)/dev.done: $(VENV)/base.done
	@$(PIP) --editable '.[dev]'
	@touch $@

# The libraries that led-ref needs, each in the first version that pyproject.toml allows; the newest pytest.
$(OLDEST)/oldest.done: pyproject.toml
	@$(PYTHON) -m venv --clear $(OLDEST)
	@$(PYTHON) -c 'import tomllib; print(*(library.replace(">=", "==") for library in tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"]), sep="\n")' > $(OLDEST)/oldest.txt
	@echo "installing the oldest libraries into $(OLDEST) ..."
	@$(OLDEST)/bin/pip install --quiet --disable-pip-version-check --constraint $(OLDEST)/oldest.txt --editable . pytest pytest-xdist hypothesis
	@touch $@

# torch by itself and pinned: a range would bring a CUDA build of several gigabytes.
$(VENV)/peer.done: $(VENV)/dev.done
	@$(PIP) torch==2.13.0
	@$(PIP) --editable '.[dev,peer]'
	@touch $@

$(VENV)/kernels.done: $(VENV)/dev.done
	@$(PIP) --editable '.[dev,kernels]'
	@touch $@

$(VENV)/docs.done: $(VENV)/dev.done
	@$(PIP) --editable '.[dev,docs]'
	@touch $@

$(VENV)/browser.done: $(VENV)/docs.done
	@$(PIP) --editable '.[dev,docs,browser]'
	@$(BIN)/python tests/browser/chromium.py
	@touch $@
