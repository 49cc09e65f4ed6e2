# What one does with imret. Every target first makes .venv and installs what it needs; python3, make and
# git are enough. With npm the site's formulas work offline too; without it they come from a CDN.

.DEFAULT_GOAL := help
.PHONY: help demo test test-changed docs lab notebooks fix wheel benchmarks clean
.DELETE_ON_ERROR:

PYTHON := python3
PY := .venv/bin/python
INSTALLED := .venv/.installed
NPM := $(shell command -v npm)
BENCHMARKS := $(filter-out benchmarks/common.py,$(wildcard benchmarks/*.py))
KATEX := $(if $(NPM),node_modules/.installed)

# What Python compiles is kept in .venv: else each process of the tests compiles torch and timm anew.
unexport PYTHONDONTWRITEBYTECODE

# Sets and caches go here, whatever folder a notebook runs in.
export IMRET_DATA ?= $(CURDIR)/data

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

demo: $(INSTALLED) ## search real photographs, and see what is right, wrong, and how sure one can be
	.venv/bin/imret demo

test: $(INSTALLED) $(KATEX) ## every check: sync, rooms, lint, each notebook, the site in a browser
	$(PY) tools/test.py $(ARGS)

test-changed: $(INSTALLED) $(KATEX) ## only what the changes since a commit can touch; BASE=HEAD if not given
	$(PY) tools/test.py --changed $(BASE)

docs: $(INSTALLED) $(KATEX) ## the site, in _docs/index.html
	$(PY) tools/docs.py

lab: $(INSTALLED) ## JupyterLab on the notebooks
	$(PY) -m jupyterlab nbs $(if $(filter 0,$(shell id -u)),--allow-root)

notebooks: $(INSTALLED) ## run every notebook and keep its outputs; one: NB=nbs/00_core.ipynb
	$(PY) tools/execute.py $(NB)
	$(PY) tools/clean.py $(NB)

fix: $(INSTALLED) ## format, export, clean, README, picture: before a commit
	$(PY) -m ruff check -q --fix --exit-zero nbs tests tools benchmarks
	$(PY) -m ruff format -q nbs tests tools benchmarks imret
	.venv/bin/nbdev_export
	$(PY) tools/clean.py
	$(PY) tools/readme.py
	$(PY) tools/figures.py
	$(PY) tools/house.py

wheel: $(INSTALLED) ## build the package, and search with it in an empty environment
	$(PY) tools/wheel.py

benchmarks: $(INSTALLED) ## measure speed as ratios to a peer in the same run
	set -e; for f in $(BENCHMARKS); do echo "== $$f"; $(PY) $$f; done

clean: ## remove what was built, not .venv and data
	rm -rf _docs _proc build dist *.egg-info node_modules .pytest_cache .ruff_cache

# One install; again only when what it reads has changed.
$(INSTALLED): settings.ini setup.py pyproject.toml tools/install.py tools/lab.json
	$(PYTHON) tools/install.py
	touch $@

# Without network the site still builds: its formulas then come from the CDN.
node_modules/.installed: package.json package-lock.json
	npm ci --silent --no-audit --no-fund && touch $@ || echo "npm failed: formulas will need the network"
