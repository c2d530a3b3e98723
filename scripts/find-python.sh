#!/usr/bin/env bash
# Prints the command of the first Python that `make setup` can use: PYTHON if it is set, else python3, else a newer one
# beside it. It must be 3.11 or newer and able to make virtual environments (Debian packs that as python3-venv).
set -euo pipefail

for candidate in ${PYTHON:-python3 python3.11 python3.12 python3.13}; do
    if "$candidate" -c "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))" 2> /dev/null; then
        echo "$candidate"
        exit 0
    fi
done
echo "error: no Python 3.11 or newer with its venv module was found (tried ${PYTHON:-python3, python3.11 to 3.13}):" \
    "install the Debian packages python3 and python3-venv, or name another one: make setup PYTHON=/path/to/python3.12" >&2
exit 1
