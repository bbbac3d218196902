#!/bin/sh
# Lint the protocol files with buf, and hold them against an earlier commit: what is already in use must not break.
# BREAKING_AGAINST names that commit; without it, main (or origin/main).
set -eu
cd "$(dirname "$0")/.."

if ! command -v node >/dev/null 2>&1 || ! command -v npm >/dev/null 2>&1; then
    echo "buf lint: skipped, because node and npm are not installed (Debian: apt-get install nodejs npm)"
    exit 0
fi

buf=node_modules/.bin/buf
if [ ! -x "$buf" ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
    echo "buf lint: installing buf from package-lock.json"
    # Not `npm ci`: it refuses a lock that does not name buf's builds for other systems.
    # No scripts: the program is inside the package.
    npm install --no-save --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null
fi

"$buf" lint
echo "buf lint: clean"

base=
for ref in "${BREAKING_AGAINST:-}" main origin/main; do
    if [ -n "$ref" ] && git rev-parse --quiet --verify "$ref:proto/kad" >/dev/null 2>&1; then
        base=$ref
        break
    fi
done
if [ -z "$base" ]; then
    echo "buf breaking: skipped, because no earlier commit holds proto/kad"
    exit 0
fi

before=$(mktemp -d)
trap 'rm -rf "$before"' EXIT
git archive "$base" proto | tar -x -C "$before"
"$buf" breaking proto --against "$before/proto"
echo "buf breaking: nothing breaks against $base"
