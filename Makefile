# make iso   forge the ISO and boot it        make test   everything a merge needs
# make setup the local environment (.venv)    make check  the daily two minutes: style, types, layers, unit tests
.POSIX:
.PHONY: setup setup-dev iso check test lint unit clean bench campaign-trace campaign-pool campaign-power campaign-hammer campaign-kill campaign-hostile campaign-fault campaign-flips

ANVIL = .venv/bin/anvil
PYTEST = .venv/bin/python -m pytest

setup:
	@scripts/setup.sh core

setup-dev:
	@scripts/setup.sh dev

iso: setup
	@$(ANVIL) forge iso

lint: setup-dev
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/shellcheck scripts/*.sh .ci/run

unit: setup-dev
	$(PYTEST) -m 'not cell and not slow and not iso'

check: lint unit

test: check
	$(PYTEST) -m 'cell or slow' --timeout 1200
	$(PYTEST) -m iso --timeout 3600

# Campaigns: the long counts; results as JSON under bench/results/.
campaign-trace: setup-dev
	.venv/bin/python -m tests.campaigns.trace_iso

campaign-pool: setup-dev
	.venv/bin/python -m tests.campaigns.pool

campaign-power: setup-dev
	.venv/bin/python -m tests.campaigns.power

campaign-hammer: setup-dev
	.venv/bin/python -m tests.campaigns.hammer

# Anvil beside its peers, on a quiet machine; half an hour. More: .venv-bench/bin/python -m bench --help
bench:
	@scripts/setup.sh bench
	.venv-bench/bin/python -m bench --save bench

campaign-kill: setup-dev
	.venv/bin/python -m tests.campaigns.kill --controls
	.venv/bin/python -m tests.campaigns.kill
	.venv/bin/python -m tests.campaigns.kill --iso 20

# Some ten minutes.
campaign-hostile: setup-dev
	.venv/bin/python -m tests.campaigns.hostile

campaign-fault: setup-dev
	.venv/bin/python -m tests.campaigns.fault

campaign-flips: setup-dev
	.venv/bin/python -m tests.campaigns.flips

clean:
	rm -rf build_artifacts .mypy_cache .ruff_cache .pytest_cache .hypothesis
