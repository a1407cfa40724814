#!/bin/sh
# Make .venv with the locked packages and Anvil in it. Usage: scripts/setup.sh core|dev|bench
# The peers of the bench have an environment of their own, .venv-bench.
# Does nothing when the lock has not changed. Needs: python3 >= 3.11 with venv, and a package index that pip knows.
set -eu
cd "$(dirname "$0")/.."
kind=${1:-core}
lock=requirements/$kind.lock
venv=.venv
if [ "$kind" = bench ]; then venv=.venv-bench; fi

say() { printf 'setup: %s\n' "$*" >&2; }

# The machine's packages: by apt when we may, else the exact command for the person who may.
need_packages() {
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "installing $* with apt"
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
    else
        say "this machine lacks: $*"
        say "next: sudo apt-get install $*"
        exit 3
    fi
}

usable() { command -v "$1" >/dev/null && "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
find_python() {
    for python in ${PYTHON:-} python3 python3.13 python3.12 python3.11 /usr/bin/python3; do
        if usable "$python"; then return 0; fi
    done
    return 1
}

find_python || need_packages python3 python3-venv
find_python || { say "no Python 3.11 or later; name one: make PYTHON=/path/to/python3 setup"; exit 3; }
"$python" -c 'import ensurepip, venv' 2>/dev/null || need_packages python3-venv

# The tests trace a forge (strace), sign a small archive (gpg), and ask git which files are the project's.
if [ "$kind" = dev ]; then
    for pair in strace:strace gpg:gnupg git:git; do
        command -v "${pair%%:*}" >/dev/null || need_packages "${pair##*:}"
    done
fi

wanted=$(cat "$lock" pyproject.toml src/anvil/microjson/_walk.c | sha256sum | cut -d' ' -f1)-$kind
stamp=$venv/anvil-setup
# The development set includes the core one.
case "$(cat "$stamp" 2>/dev/null || true)" in
    "$wanted") exit 0 ;;
    *-dev) if [ "$kind" = core ] && .venv/bin/anvil --version >/dev/null 2>&1; then exit 0; fi ;;
esac

say "making $venv ($kind)"
if [ -d $venv ] && ! $venv/bin/python -c '' 2>/dev/null; then rm -rf $venv; fi
[ -d $venv ] || "$python" -m venv $venv
$venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r "$lock" || {
    say "pip could not install the packages of $lock"
    say "next: check the network and pip's index (pip config list), then run this again"
    exit 3
}
$venv/bin/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
$venv/bin/python -c 'import anvil.microjson._walk' 2>/dev/null ||
    say "no C compiler or no Python.h: MicroJSON takes its slower walk (next: install gcc and python3-dev, then rm $stamp)"
printf '%s\n' "$wanted" >"$stamp"
