# Builds target/component.wasm. `switchboard build` runs this script. pip fetches the tool at the first
# build, and when requirements.txt has changed.
set -eu
mkdir -p target
if [ ! -x .venv/bin/componentize-py ] || [ ! target/tools -nt requirements.txt ]; then
    python3 -m venv .venv
    .venv/bin/python -m pip install --quiet --requirement requirements.txt
    touch target/tools
fi
cd src
# A handler has no files, environment or sockets of WASI, so they are replaced by stubs.
../.venv/bin/componentize-py --wit-path ../wit --world handler \
    componentize handler --stub-wasi --output ../target/component.wasm
