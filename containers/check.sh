#!/usr/bin/env bash
# Builds the CPU image, tests it and reproduces a small profile in it: what `tox -e container` runs.
#
#   check.sh [OPTION OF build.sh...]
#
# Needs a Python with the packages of containers/locks/test.lock. IOA_CONTAINER_PROFILE names
# another profile than micro-short.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

profile=${IOA_CONTAINER_PROFILE:-micro-short}
image=localhost/ioa-jax:cpu
results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT

step() {
    local start=$SECONDS
    echo "-- $*"
    "$@"
    echo "-- $((SECONDS - start)) s"
}

step "$containers/build.sh" "$@" --tag "$image" cpu | tee "$results/build.log"
id=$(grep '^sha256:' "$results/build.log")
[ -z "${CI:-}" ] || step "$containers/build.sh" --check cuda
[ -z "${CI:-}" ] || step "$containers/build.sh" --check tpu

cd "$containers/.."
IOA_CONTAINER_IMAGE=$image step python -m pytest -q tests/containers
# Programs that attack the sandbox, here without bubblewrap.
step "$containers/run.sh" --image "$image" test -q \
    tests/sandbox tests/test_record.py tests/containers

# A profile without reference results is compared with itself.
reference=results/reference/$profile
if [ ! -d "$reference" ]; then
    step "$containers/run.sh" --image "$image" bench --profile "$profile" \
        --output "$results/first" --run-id first
    reference=$results/first/$profile/first
fi
step "$containers/reproduce.sh" --image "$image" --image-id "$id" --profile "$profile" \
    --reference "$reference" --output "$results/second"
