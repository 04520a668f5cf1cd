#!/usr/bin/env bash
# Gets the published image, checks that it is the one, runs a profile in it without a network and
# compares with the reference results; `reproduce.sh --help` tells how.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
    cat <<'TEXT'
reproduce.sh [OPTION...] [-- ARGUMENT...]     arguments go to python -m suite run

  --profile NAME   what to run; default: micro
  --output DIR     where the results go; default: results
  --reference DIR  run to compare with; default: the one in results/reference/PROFILE
  --archive FILE   load the image from this OCI archive instead of pulling it
  --image IMAGE    an image that is here already, instead of pulling it
  --image-id ID    the ID that the image has to have; default: the one of images.lock.json
  --target NAME    cpu (default), cuda or tpu
  --engine NAME    docker or podman; default: the first that works

Prints the comparison and its verdict. Exit code: that of `suite compare`, so 0 where the results
agree and 5 where they don't; 2, 3 or 4 where it doesn't come to that.
TEXT
}

profile=micro output=results reference='' archive='' image='' expected='' target=cpu wanted=''
while [ $# -gt 0 ]; do
    case $1 in
        --profile | --output | --reference | --archive | --image | --image-id | --target | --engine)
            [ $# -ge 2 ] || die $BAD_INPUT "$1 needs a value" ;;&
        --profile) profile=$2 && shift ;;
        --output) output=${2%/} && shift ;;
        --reference) reference=$2 && shift ;;
        --archive) archive=$2 && shift ;;
        --image) image=$2 && shift ;;
        --image-id) expected=$2 && shift ;;
        --target) target=$2 && shift ;;
        --engine) wanted=$2 && shift ;;
        --help | -h) usage && exit ;;
        --) shift && break ;;
        *) die $BAD_INPUT "option '$1' is unknown; see --help" ;;
    esac
    shift
done
check_target "$target"
[ -z "$archive" ] || [ -z "$image" ] || die $BAD_INPUT "--archive or --image, not both"

# The one run in a folder, or the folder itself where it is a run.
run_in() {
    local found
    found=$(find "$1" -maxdepth 2 -name run.json 2>/dev/null || true)
    [ -n "$found" ] || die $BAD_INPUT "$1: no run is there to compare with"
    [ "$(wc -l <<<"$found")" = 1 ] ||
        die $BAD_INPUT "$1: several runs are there; name one with --reference"
    dirname "$found"
}
reference=$(run_in "${reference:-$containers/../results/reference/$profile}")

engine=$(find_engine run "$wanted")

expected=${expected:-$(locked targets "$target" image_id)}
[ -n "$expected" ] || die $BAD_INPUT "images.lock.json has no image ID for $target, since none is" \
    "published yet: build one with containers/build.sh $target, and name it and the ID that was" \
    "printed with --image and --image-id"

# Prints the name of the image, after loading or pulling it.
get_image() {
    local answer name digest
    if [ -n "$image" ]; then
        echo "$image"
        return
    fi
    need_disk "$(engine_store "$engine")" 3
    if [ -n "$archive" ]; then
        [ -f "$archive" ] || die $BAD_INPUT "--archive $archive: no such file"
        answer=$("$engine" load --input "$archive" 2>&1) || die $BAD_INPUT "--archive $archive:" \
            "$engine can't load it: $(tail -n 1 <<<"$answer")"
        # As in "Loaded image: localhost/ioa-jax:cpu".
        name=$(sed -n 's/^Loaded image[^:]*: //p' <<<"$answer" | tail -n 1)
        echo "${name:?}"
        return
    fi
    digest=$(locked targets "$target" digest)
    [ -n "$digest" ] || die $BAD_INPUT "images.lock.json has no published image for $target; load" \
        "its archive with --archive, or build it with containers/build.sh $target"
    pull_image "$engine" "$digest" image "--archive loads one from a file" >&2
    echo "$digest"
}
image=$(get_image)

id=$(image_id "$engine" "$image") || die $BAD_INPUT "$engine has no image $image"
[ "$id" = "$expected" ] || die $BAD_IMAGE "$image is $id, not $expected: another image, or one" \
    "that was changed"
echo "image $image, $id, as expected"

run_id=reproduction-$(date --utc +%Y%m%dT%H%M%SZ)
start=("$containers/run.sh" --engine "$engine" --target "$target" --image "$image")
"${start[@]}" bench --output "$output" --profile "$profile" --run-id "$run_id" "$@"

code=0
"${start[@]}" --output "$output" --input "$reference" suite compare \
    "$reference" "$output/$profile/$run_id" || code=$?
case $code in
    0) echo "reproduced: $output/$profile/$run_id agrees with $reference" ;;
    5) echo "not reproduced: $output/$profile/$run_id differs from $reference" ;;
    *) die $code "the comparison failed" ;;
esac
exit $code
