#!/usr/bin/env bash
# Prepares the dashboard's tests below the target folder given, and plays those that need no migrator: types against the contract,
# type check, units, size, and the browser against a made-up world. The sources stay as they are.
set -euo pipefail
cd "$(dirname "$0")/../.."
target=$(mkdir -p "${1:?usage: tests/tools/page.sh TARGET}" && cd "$1" && pwd)
copy=$target/page
web=$copy/dashboard/web

mkdir -p "$web" "$copy/configs"
cp configs/openapi.json "$copy/configs/"
for old in "$web"/* ; do
  case $old in */node_modules | */installed-lock.json) ;; *) rm -rf "$old" ;; esac
done
tar -C dashboard/web --exclude=./node_modules --exclude=./dist -cf - . | tar -C "$web" -xf -
cd "$web"
export PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD=1 SEGUE_ARTEFACTS=$target/dashboard
if ! cmp -s package-lock.json installed-lock.json; then
  npm ci --ignore-scripts --no-audit --no-fund
  cp package-lock.json installed-lock.json
fi
npm test
