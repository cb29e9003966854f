# Every target sets up what it needs. Stamp files inside an environment say what it holds, so a
# second call installs nothing until pyproject.toml changes.

PYTHON := .venv/bin/python
LOWEST := .venv-lowest/bin/python
PIP := -m pip --disable-pip-version-check install -qq
# One worker a core, at most 8: each holds a JAX of its own and compiles for itself.
WORKERS := -n auto --maxprocesses 8

.PHONY: help demo test test-lowest test-slow notebooks docs bench bench-batch accuracy clean
.NOTPARALLEL: # two installs into one environment would clash

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1: /p' $(MAKEFILE_LIST) | awk -F ': ' '{printf "make %-12s %s\n", $$1, $$2}'

demo: .venv/.demo ## fit a real example, print its summary, write a picture
	@$(PYTHON) -m bbvi

test: .venv/.dev ## lint, format check, types, doctests, tests
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check
	$(PYTHON) -m mypy
	$(PYTHON) -m pytest --doctest-modules bbvi
	$(PYTHON) -m pytest $(WORKERS)

test-lowest: .venv-lowest/.installed ## tests on the lowest supported versions, without extras
	$(LOWEST) -m pytest $(WORKERS)

test-slow: .venv/.dev ## the tests left out of `make test`
	$(PYTHON) -m pytest $(WORKERS) -m slow

notebooks: .venv/.dev ## run the notebooks again, in place
	$(PYTHON) .ci/notebooks.py $(sort $(wildcard notebooks/*.ipynb))

docs: .venv/.docs ## build the site into build/site; warnings and broken links are errors
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --quiet --strict -f .docs/mkdocs.yml

bench: .venv/.dev ## time the optimisation loop
	$(PYTHON) benchmarks/loop.py

bench-batch: .venv/.dev ## time thousands of small fits, beside numpyro
	$(PYTHON) -m benchmarks.batch

accuracy: .venv/.dev ## fit posteriordb by the default; POSTERIORDB is the path of a clone of it
	$(PYTHON) -m benchmarks.posteriordb.accuracy --keys 0-4

clean: ## remove environments, caches and build output
	rm -rf .venv .venv-lowest .mypy_cache .pytest_cache .ruff_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.created:
	@echo "creating .venv"
	@python="$$(.ci/find-python)" && "$$python" -m venv --clear .venv && touch $@

.venv/.demo: pyproject.toml .venv/.created
	@echo "installing bbvi with the plot and progress extras into .venv (about a minute)"
	@$(PYTHON) $(PIP) -e '.[plot,progress]' && touch $@

.venv/.dev: pyproject.toml .venv/.created
	@echo "installing bbvi with the dev extra into .venv (a few minutes)"
	@$(PYTHON) $(PIP) -e '.[dev]' && touch $@

.venv/.docs: pyproject.toml .venv/.created
	@echo "installing the docs extra into .venv (about a minute)"
	@$(PYTHON) $(PIP) -e '.[docs]' && touch $@

.venv-lowest/.created:
	@echo "creating .venv-lowest"
	@python="$$(.ci/find-python 3.11 3.12 3.13)" && "$$python" -m venv --clear .venv-lowest && touch $@

.venv-lowest/.installed: pyproject.toml .ci/lowest.txt .venv-lowest/.created
	@echo "installing bbvi on its lowest versions into .venv-lowest (about a minute)"
	@$(LOWEST) $(PIP) -c .ci/lowest.txt -e . pytest pytest-xdist && touch $@
