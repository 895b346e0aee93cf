# Concord: `make run` to use it, `make test` to check it, `make demo` for the tour without a browser.
#
# TORCH_INDEX chooses another build of torch, e.g. the CPU one on Linux:
#   make run TORCH_INDEX=https://download.pytorch.org/whl/cpu
PYTHON ?= python3.11
PORT ?= 8000
TORCH_INDEX ?=
BIN := .venv/bin
READY := .venv/ready
WRITTEN := fixtures/completions.jsonl fixtures/corpus.jsonl
WORDS := annotation/locale/zh_Hans/LC_MESSAGES/django.mo
LAPTOP := CONCORD_MODE=laptop

.PHONY: run demo test lint browser setup clean lock
.DELETE_ON_ERROR:

run: setup
	@$(LAPTOP) $(BIN)/python -m workers.laptop --port $(PORT)

demo: setup
	@$(BIN)/python -m fixtures.tour

test: setup lint browser
	$(BIN)/python tests/both.py

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(LAPTOP) $(BIN)/python manage.py makemigrations --check --dry-run

browser: setup
	@$(BIN)/python tests/browser/chromium.py

setup: $(READY) $(WRITTEN) $(WORDS)

# Torch carries no hash in the lock: its CPU and CUDA builds share a version number.
$(READY): requirements.lock requirements-torch.lock Makefile
	@command -v $(PYTHON) >/dev/null || { echo "Concord needs Python 3.11: $(PYTHON) was not found (PYTHON=... names another)." >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "Concord needs Python 3.11, $(PYTHON) is another." >&2; exit 2; }
	@test -f $@ || rm -rf .venv  # half of one, perhaps of another Python
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --disable-pip-version-check torch==2.13.0 $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	$(BIN)/pip install --disable-pip-version-check --no-deps --require-hashes -r requirements-torch.lock
	@touch $@

$(WORDS): $(WORDS:.mo=.po) $(READY)
	@$(LAPTOP) $(BIN)/python manage.py compile_translations --verbosity 0

# The demo's data, from its grammar; fixtures/SHA256SUMS holds what comes out.
$(WRITTEN): $(wildcard fixtures/*.py) $(READY)
	@$(BIN)/python -m fixtures.make > /dev/null

# Renew requirements.lock after a change of requirements.in.
lock: setup
	$(BIN)/pip install pip-tools
	$(BIN)/pip-compile --quiet --generate-hashes --strip-extras --allow-unsafe --no-header \
	  --no-emit-index-url --no-emit-find-links --no-emit-options -o requirements.lock requirements.in

clean:
	rm -rf .venv var
