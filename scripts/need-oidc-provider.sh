#!/bin/sh
# Installs the OpenID provider of the tests, by its lock file, into target/test-tools.
set -eu

cd "$(dirname "$0")/.."
source=tests/oidc-provider
folder=target/test-tools/oidc-provider
# What was installed by another lock file is installed anew.
cmp -s "$source/package-lock.json" "$folder/installed-by.json" && exit 0

scripts/need.sh node:nodejs npm:npm
echo "Installing oidc-provider into $folder" >&2
mkdir -p "$folder"
cp "$source/package.json" "$source/package-lock.json" "$source/.npmrc" "$folder/"
(cd "$folder" && npm ci --ignore-scripts --silent)
cp "$source/package-lock.json" "$folder/installed-by.json"
