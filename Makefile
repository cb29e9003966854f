# Every target sets up what it needs. Stamp files inside an environment say what it holds, so a
# second call installs nothing until pyproject.toml changes.

PYTHON := .venv/bin/python
LOWEST := .venv-lowest/bin/python
BENCH := .venv-bench/bin/python
# One worker a core, at most 8: each holds a JAX of its own and compiles for itself. Tests of a file,
# and the fixtures they share, mostly go to one of them.
WORKERS := -n auto --maxprocesses 8 --dist worksteal

.PHONY: help demo test test-lowest test-slow notebooks docs bench bench-quick \
	bench-batch counted accuracy clean
.NOTPARALLEL: # two installs into one environment would clash

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1: /p' $(MAKEFILE_LIST) | awk -F ': ' '{printf "make %-12s %s\n", $$1, $$2}'

demo: .venv/.demo ## fit a real example, print its summary, write a picture
	@$(PYTHON) -m bbvi

test: .venv/.dev ## lint, format check, doctests, tests, types and counts among them
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check
	$(PYTHON) -m pytest $(WORKERS) --durations=20 --doctest-modules bbvi tests

test-lowest: .venv-lowest/.installed ## tests on the lowest supported versions, without extras
	$(LOWEST) -m pytest $(WORKERS)

test-slow: .venv/.dev ## the tests left out of `make test`
	$(PYTHON) -m pytest $(WORKERS) -m slow

notebooks: .venv/.dev ## run the notebooks again, in place
	$(PYTHON) .ci/notebooks.py $(sort $(wildcard notebooks/*.ipynb))

docs: .venv/.docs ## build the site into build/site; warnings and broken links are errors
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --quiet --strict -f .docs/mkdocs.yml

bench: .venv-bench/.installed ## everything beside the field, hours; goes on if broken off
	$(BENCH) benchmarks/loop.py
	$(BENCH) -m benchmarks.batch
	$(BENCH) -m benchmarks.peers.cold
	$(BENCH) -m benchmarks.peers.refit
	$(BENCH) -m benchmarks.peers.steps
	$(BENCH) -m benchmarks.peers.accuracy
	$(BENCH) -m benchmarks.peers.report
	$(BENCH) -m benchmarks.peers.pictures

bench-quick: .venv-bench/.installed ## a part of it, about ten minutes
	$(BENCH) -m benchmarks.peers.cold --repeats 1
	$(BENCH) -m benchmarks.peers.refit --fits 5
	$(BENCH) -m benchmarks.peers.accuracy --quick --settings newcomer
	$(BENCH) -m benchmarks.peers.report
	$(BENCH) -m benchmarks.peers.pictures

bench-batch: .venv/.dev ## time thousands of small fits, beside numpyro
	$(PYTHON) -m benchmarks.batch

counted: .venv/.dev ## count gradients, compilations, sizes of programs; fails if one has grown
	$(PYTHON) -m benchmarks.counted

accuracy: .venv/.dev ## fit posteriordb by the default; POSTERIORDB is the path of a clone of it
	$(PYTHON) -m benchmarks.accuracy --keys 0-4

clean: ## remove environments, caches and build output
	rm -rf .venv .venv-bench .venv-lowest .cache .mypy_cache .pytest_cache .ruff_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.created:
	@echo "creating .venv"
	@python="$$(.ci/find-python)" && "$$python" -m venv --clear .venv && touch $@

.venv/.demo: pyproject.toml .venv/.created
	@echo "installing bbvi with the plot and progress extras into .venv (half a minute)"
	@.ci/install $(PYTHON) -e '.[plot,progress]' && touch $@

.venv/.dev: pyproject.toml .venv/.created
	@echo "installing bbvi with the dev extra into .venv (a minute or so)"
	@.ci/install $(PYTHON) -e '.[dev]' && touch $@

.venv/.docs: pyproject.toml .venv/.created
	@echo "installing the docs extra into .venv (half a minute)"
	@.ci/install $(PYTHON) -e '.[docs]' && touch $@

.venv-bench/.created:
	@echo "creating .venv-bench"
	@python="$$(.ci/find-python)" && "$$python" -m venv --clear .venv-bench && touch $@

.venv-bench/.installed: pyproject.toml .ci/bench.txt .venv-bench/.created
	@echo "installing bbvi and its peers into .venv-bench (a minute or so)"
	@.ci/install $(BENCH) --upgrade -r .ci/bench.txt -e . && touch $@

.venv-lowest/.created:
	@echo "creating .venv-lowest"
	@python="$$(.ci/find-python 3.11 3.12 3.13)" && "$$python" -m venv --clear .venv-lowest && touch $@

.venv-lowest/.installed: pyproject.toml .ci/lowest.txt .venv-lowest/.created
	@echo "installing bbvi on its lowest versions into .venv-lowest (half a minute)"
	@.ci/install $(LOWEST) -c .ci/lowest.txt -e . pytest pytest-xdist && touch $@
