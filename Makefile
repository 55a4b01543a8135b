# What can be done in this checkout; `make` alone lists it. Only a POSIX shell and a Python are needed.

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format locks images templates clean system

# The first Python of these versions that really runs and can make environments: a name on PATH may be a shim.
# `make PYTHON=/path/to/python …` names one.
find = $(shell for version in $(1); do \
	for python in python$$version /usr/bin/python$$version /usr/local/bin/python$$version \
			$$HOME/.pyenv/versions/$$version.*/bin/python; do \
		"$$python" -c 'import ensurepip, sys, venv; sys.exit("%d.%d" % sys.version_info[:2] != "'$$version'")' \
			>/dev/null 2>&1 && "$$python" -c 'import sys; print(sys.executable)' && exit; \
	done; done)
NEWEST = $(or $(PYTHON),$(call find,3.13 3.12 3.11))
OLDEST = $(call find,3.11)
BIN = .venv/bin
# uv fetches no interpreter: what is on the machine is used.
export UV_PYTHON_DOWNLOADS = never

help:
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 18

setup: .venv/.dev ## .venv, with the tool as it is here and everything to work on it

demo: .venv/.tool ## an example on a notebook with four engines, from nothing to its result
	@examples/demo.sh

test: system .venv/.dev lint ## everything: linters, the quick tests on the oldest Python, all on the newest
	@$(MAKE) --no-print-directory oldest
	$(BIN)/pytest -n auto --maxprocesses 4 --dist worksteal

lint: .venv/.dev ## ruff and mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: .venv/.dev ## let ruff mend what it can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

locks: .venv/.dev ## choose the newest versions of what we add to environments and of the viewer
	cd builder/ipython_builder/locks && ../../../$(BIN)/uv pip compile --quiet --universal --upgrade \
		--python-version 3.9 --no-header --no-annotate runtime.in -o runtime.txt
	cd builder/ipython_builder/locks && ../../../$(BIN)/uv pip compile --quiet --universal --upgrade \
		--python-version 3.11 --no-header --no-annotate --generate-hashes viewer.in -o viewer.txt
	images/lock.sh $(abspath $(BIN))/uv

images: ## the builder image and the one for science, into podman and, where it runs, docker
	@images/make.sh

templates: .venv/.dev ## templates/openshift/all.yaml and the page about the templates, from the template files
	$(BIN)/python templates/openshift/make.py
	$(BIN)/python templates/kubernetes/make.py
	$(BIN)/python docs/generate_templates.py

clean: ## what make has made, with the demo's cluster
	-@test ! -x $(BIN)/ipython-builder || $(BIN)/ipython-builder down demo >/dev/null 2>&1
	rm -rf .venv .venv-oldest .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis build builder/*.egg-info
	find builder tests examples benchmarks -name __pycache__ -prune -exec rm -rf {} +

# -- how ---------------------------------------------------------------------------------------

# The tool alone is enough for the demo, and a quarter of the download.
.venv/.tool: setup.cfg pyproject.toml
	@$(call install,.venv,$(NEWEST),.)
	@touch $@
.venv/.dev: .venv/.tool
	@$(call install,.venv,$(NEWEST),'.[dev]')
	@touch $@
.venv-oldest/.dev: setup.cfg pyproject.toml
	@$(call install,.venv-oldest,$(OLDEST),'.[dev]')
	@touch $@

# uv comes from PyPI like everything else, into the environment itself.
define install
test -n "$(2)" || { echo "no Python 3.11 to 3.13 that can make environments was found:" \
	"install one (Debian: python3-venv too), or name it with PYTHON=" >&2; exit 1; }; \
test -x $(1)/bin/pip || { echo "$(1): $(2)"; "$(2)" -m venv --clear $(1); } && \
$(1)/bin/pip --disable-pip-version-check install --quiet 'uv>=0.8' && \
$(1)/bin/uv pip install --quiet --python $(1)/bin/python --editable $(3)
endef

# The suite on the oldest Python: of what is slow, only a part, which starts clusters for every role and verb.
.PHONY: oldest
ifeq ($(or $(OLDEST),none),$(or $(NEWEST),none))
oldest:
	@echo "Python 3.11 is the newest here, or not here: the quick tests run once"
else
oldest: .venv-oldest/.dev
	.venv-oldest/bin/pytest -n auto --maxprocesses 4 -m 'not slow or oldest'
endif

# CI=true promises that nothing is skipped for want of a system package. Only what is missing is installed.
PACKAGES = chromium chromium-driver podman buildah skopeo runc conmon netavark aardvark-dns iptables catatonit \
	uidmap podman-compose docker.io docker-registry mmdebstrap tcpdump \
	etcd-server containerd containernetworking-plugins iproute2
system:
ifeq ($(CI),true)
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		there=$$(dpkg-query -W -f '$${db:Status-Status} $${Package}\n' $(PACKAGES) 2>/dev/null); \
		missing=; for one in $(PACKAGES); do \
			case " $$(echo $$there) " in *" installed $$one "*) ;; *) missing="$$missing $$one" ;; esac; \
		done; \
		test -z "$$missing" || { echo "installing$$missing"; apt-get update -qq && \
			DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends $$missing >/dev/null; }; \
	fi
endif
