# make iso              forge the ISO and boot it
# make setup            the local environment: .venv (make setup-dev: with all that development needs)
# make check            the daily two minutes: style, types, layers (make lint), unit tests (make unit)
# make test             everything a merge needs
# make bench            Anvil beside its peers
# make campaign-hostile every attack of tests/hostile, as root and as an ordinary user, with its control
# make campaign-kill    kill -9 anywhere in forges, of a small deck and of the ISO's
# make campaign-power   simulated power cuts under the cortex and the vault
# make campaign-fault   every writing call of a forge fails in turn, and memory lacks
# make campaign-flips   flipped bits in a vault, each to be found and never served
# make campaign-hammer  eight processes on one cortex for ten minutes
# make campaign-pool    the ZFS pool's image made again and again under other conditions (forge the rootfs first)
# make campaign-environment  faults of the environment, each to be told with cause and mend before any build (as root)
# make campaign-first-image  docs/PROJECT.md to the letter: from nothing to a booted image of one's own
# make campaign-edits   twenty edits, what anvil why names for each, and what runs because of it
# make campaign-trace   the forge of the ISO under strace: what runs outside every cell
# make clean            artifacts and caches of this checkout; Anvil's home stays
.POSIX:
.PHONY: setup setup-dev iso check test lint unit clean bench \
	campaign-hostile campaign-kill campaign-power campaign-fault \
	campaign-flips campaign-hammer campaign-pool campaign-trace campaign-environment \
	campaign-first-image campaign-edits

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

# Anvil beside its peers, on a quiet machine; half an hour. More: .venv-bench/bin/python -m bench --help
bench:
	@scripts/setup.sh bench
	.venv-bench/bin/python -m bench --save bench

# Campaigns: the long counts; results as JSON under bench/results/. The head of a module in tests/campaigns says what
# it looks for, and how to run a part of it.
campaign-trace: setup-dev
	.venv/bin/python -m tests.campaigns.trace_iso

campaign-environment: setup-dev
	.venv/bin/python -m tests.campaigns.environment

campaign-first-image: setup-dev
	.venv/bin/python -m tests.campaigns.first_image

# Some four minutes; then estimates, which want a quiet machine.
campaign-edits: setup-dev
	.venv/bin/python -m tests.campaigns.edits
	.venv/bin/python -m tests.campaigns.edits --estimates zfs

campaign-pool: setup-dev
	.venv/bin/python -m tests.campaigns.pool

campaign-power: setup-dev
	.venv/bin/python -m tests.campaigns.power

campaign-hammer: setup-dev
	.venv/bin/python -m tests.campaigns.hammer

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
