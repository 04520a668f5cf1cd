#!/usr/bin/env bash
# Writes containers/locks/*.lock from pyproject.toml and containers/locks/*.in, and what
# containers/images.lock.json says of them.
#
# Versions already locked are kept where they still fit; --upgrade takes the newest ones instead,
# --upgrade-package NAME that of one package.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$containers/.."

tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
python3 -m venv "$tools"
"$tools/bin/pip" install --quiet uv==0.13.9

locks=containers/locks
# --fork-strategy fewest: one version of a package for all Pythons, where one fits them all.
# --no-config and --no-emit-*: how this machine is set up doesn't show in what is locked.
compile() {
    "$tools/bin/uv" pip compile --quiet --no-config \
        --universal --python-version 3.11 --fork-strategy fewest \
        --generate-hashes --no-emit-index-url --no-emit-find-links \
        --custom-compile-command containers/lock.sh "$@"
}

# Each lock is held to the versions of the one before it, so that all of them agree.
compile "$@" --output-file $locks/base.lock pyproject.toml
compile "$@" --output-file $locks/test.lock --constraints $locks/base.lock \
    pyproject.toml $locks/test.in
compile "$@" --output-file $locks/types.lock --constraints $locks/test.lock \
    pyproject.toml $locks/test.in $locks/types.in
compile "$@" --output-file $locks/docs.lock --constraints $locks/test.lock \
    pyproject.toml $locks/docs.in
for target in cuda tpu; do
    compile "$@" --output-file $locks/$target.lock --constraints $locks/test.lock \
        --extra $target pyproject.toml
done
compile "$@" --output-file $locks/container.lock --constraints $locks/test.lock \
    $locks/container.in
compile "$@" --output-file $locks/lint.lock $locks/lint.in
compile "$@" --output-file $locks/build.lock $locks/build.in
compile "$@" --output-file $locks/smollm2.lock --no-deps $locks/smollm2.in

python3 containers/images_lock.py
