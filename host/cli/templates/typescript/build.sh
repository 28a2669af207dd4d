# Builds target/component.wasm. `switchboard build` runs this script. npm fetches the tools at the first
# build, and when package.json has changed.
set -eu
mkdir -p target
if [ ! -d node_modules ] || [ ! target/tools -nt package.json ]; then
    npm install --no-audit --no-fund
    touch target/tools
fi
node_modules/.bin/tsc
node build.mjs
