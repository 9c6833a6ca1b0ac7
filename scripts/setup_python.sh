#!/bin/sh
# Makes .venv from Debian's Python and installs the packages pinned in requirements.lock, and this
# checkout (editable) with the lglstm command; `setup_python.sh dev` those of requirements-dev.lock.
# Does nothing when that was done already.
set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh

python=/usr/bin/python3
venv=$PWD/.venv
lock=requirements${1:+-$1}.lock
record=$venv/share/lg-lstm/python${1:+-$1}.sha256
wanted=$($python -V; cat "$lock" pyproject.toml scripts/setup_python.sh)
wanted=$(echo "$wanted" | sha256sum)

# A virtual environment holds its own path: one that was moved or copied here is of no use.
made_here() {
    grep -qsx "command = $python -m venv $venv" "$venv/pyvenv.cfg" && "$venv/bin/python" -c ''
}
made_here || rm -rf "$venv"
[ "$(cat "$record" 2>/dev/null)" != "$wanted" ] || exit 0

echo "Installing the Python packages of $lock into .venv"
rm -f "$record"
require_space . 1000 "the Python packages"
[ -d "$venv" ] || $python -m venv "$venv" ||
    fail ".venv could not be made with $python: check that you may write to $PWD"
log=$venv/pip.log
pip_install() {
    # Without --no-compile most of the time goes into modules that nobody will import.
    "$venv/bin/python" -m pip --disable-pip-version-check install -q --no-compile --retries 2 \
        "$@" 2>"$log"
}
pip_install --require-hashes --no-deps --only-binary :all: -r "$lock" &&
    pip_install --no-deps --no-build-isolation -e . || {
    grep ERROR "$log" >&2 || cat "$log" >&2
    ! grep -q 'DO NOT MATCH THE HASHES' "$log" ||
        fail "a downloaded Python package does not have the hash of $lock: it was" \
            "damaged or replaced on its way; try another network or package index"
    fail "the Python packages of $lock could not be installed: check the network" \
        "connection, then run make setup again (all messages: $log)"
}
mkdir -p "$(dirname "$record")"
echo "$wanted" >"$record"
