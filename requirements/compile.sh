#!/usr/bin/env bash
# Choose the versions of every requirements/*.txt again: `tox run -e pins`.
set -euo pipefail
cd "$(dirname "$0")/.."

compile() { # NAME_OF_PINS NAME_OF_AIRFLOW FURTHER_FILES...
    local pins=$1 airflow=$2
    shift 2
    uv pip compile -q --universal --python-version 3.10 --no-header --no-annotate --upgrade --all-extras \
        -o "requirements/$pins.txt" "requirements/$airflow.in" setup.cfg requirements/test.in requirements/system.in \
        "${@/#/requirements/}"
}

for version in 211 30 31 32; do
    compile "airflow$version" "airflow$version"
done
compile airflow33 airflow33 lint.in types.in wheel.in
compile faults airflow33 faults.in
