#!/usr/bin/env bash
# Builds the CPU image, tests it and reproduces a small profile in it: what `tox -e container` runs.
#
#   check.sh [--base IMAGE] [--engine NAME]     as for build.sh, but buildah can't run what it builds
#
# With CI set, it also builds a second time from scratch and compares, and looks up the wheels of the
# other targets. Needs a Python with pytest. IOA_CONTAINER_PROFILE names another profile than
# micro-short.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

base=() wanted=''
while [ $# -gt 0 ]; do
    case $1 in
        --base | --engine) [ $# -ge 2 ] || die $BAD_INPUT "$1 needs a value" ;;
        *) die $BAD_INPUT "option '$1' is unknown: --base or --engine" ;;
    esac
    if [ "$1" = --base ]; then base=(--base "$2"); else wanted=$2; fi
    shift 2
done
engine=$(find_engine check "$wanted")
[ -z "${CI:-}" ] || need_same_twice "$engine" "CI is set"
profile=${IOA_CONTAINER_PROFILE:-micro-short}
image=localhost/ioa-jax:cpu
results=$(mktemp -d)
trap 'wait; rm -rf "$results"' EXIT

step() {
    local start=$SECONDS
    echo "-- $*"
    "$@"
    echo "-- $((SECONDS - start)) s"
}
build=("$containers/build.sh" --engine "$engine" "${base[@]}")
run=("$containers/run.sh" --engine "$engine" --image "$image")

step "${build[@]}" --tag "$image" cpu | tee "$results/build.log"
id=$(grep '^sha256:' "$results/build.log")
if [ -n "${CI:-}" ]; then
    # Beside the tests: most steps keep one core busy.
    {
        step "${build[@]}" --tag "$image-again" cpu
        step "$containers/build.sh" --check cuda
        step "$containers/build.sh" --check tpu
    } &>"$results/again.log" &
    second=$!
fi

cd "$containers/.."
export IOA_CONTAINER_IMAGE=$image IOA_CONTAINER_ENGINE=$engine
step python -m pytest -q --confcutdir tests/containers tests/containers/test_image.py \
    tests/containers/test_registry.py
# Programs that attack the sandbox, here without bubblewrap.
step "${run[@]}" test -q -n 2 tests/sandbox tests/test_record.py

# A profile without reference results is compared with itself.
reference=results/reference/$profile
if [ ! -d "$reference" ]; then
    step "${run[@]}" bench --profile "$profile" --output "$results/first" --run-id first
    reference=$results/first/$profile/first
fi
step "$containers/reproduce.sh" --engine "$engine" --image "$image" --image-id "$id" \
    --profile "$profile" --reference "$reference" --output "$results/second" -- --jobs 2

if [ -n "${CI:-}" ]; then
    code=0
    wait "$second" || code=$?
    cat "$results/again.log"
    [ $code = 0 ] || die $code "the second build or a look-up failed"
    again=$(grep '^sha256:' "$results/again.log")
    [ "$again" = "$id" ] || die $BAD_IMAGE "two builds from scratch differ: $id and $again"
    echo "two builds from scratch gave the same image, $id"
    "$engine" rmi "$image-again" >/dev/null
fi
