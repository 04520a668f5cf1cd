# What the scripts of this folder share. Sourced, not run.
# shellcheck shell=bash

# Exit codes, the same in all scripts: 2 bad arguments or files, 3 something has to be installed or
# allowed on this machine, 4 what was built or pulled is not what it has to be.
# shellcheck disable=SC2034  # Read by the scripts that source this file.
readonly BAD_INPUT=2 BAD_MACHINE=3 BAD_IMAGE=4
readonly TARGETS="cpu cuda tpu"
# A function that fails inside $(...) ends the script too.
shopt -s inherit_errexit

containers=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

die() {
    local code=$1
    shift
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit "$code"
}

# A value of images.lock.json: keys as arguments. Empty where it is null.
locked() {
    python3 - "$containers/images.lock.json" "$@" <<'PYTHON' ||
import json, sys
value = json.load(open(sys.argv[1], encoding="utf-8"))
for key in sys.argv[2:]:
    value = value[key]
print("" if value is None else value)
PYTHON
        die $BAD_INPUT "images.lock.json has no $*: git checkout containers/images.lock.json"
}

check_target() {
    case " $TARGETS " in
        *" $1 "*) ;;
        *) die $BAD_INPUT "target '$1': one of $TARGETS" ;;
    esac
}

# Whether version $1 is at least $2.
at_least() {
    [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]
}

# What keeps engine $1 from being used here; nothing if it can be. $2: build, run or check, which is
# both.
engine_problem() {
    local engine=$1 use=$2 version minimum answer
    case $engine in
        docker) minimum=23.0 ;;
        podman) minimum=4.3 ;;
        buildah) minimum=1.28 ;;
    esac
    if ! command -v "$engine" >/dev/null; then
        echo "$engine is not installed"
        return
    fi
    # The first number in it, as in "podman version 4.3.1" or "Docker version 28.2.2, build ...".
    version=$("$engine" --version 2>/dev/null | grep -oE '[0-9]+(\.[0-9]+)+' | head -n 1 || true)
    if ! at_least "${version:-0}" "$minimum"; then
        echo "$engine ${version:-of unknown version} is too old: $minimum or newer is needed"
        return
    fi
    if ! answer=$("$engine" info 2>&1 >/dev/null); then
        case $answer in
            *"ermission denied"*)
                echo "$engine may not be used by $(id -un): add the user to the group docker and" \
                    "log in again, or use podman, which needs no permission" ;;
            *) echo "$engine doesn't answer: $(tail -n 1 <<<"$answer")" ;;
        esac
        return
    fi
    if [ "$engine" = docker ] && [ "$use" != run ] && ! docker buildx version >/dev/null 2>&1; then
        echo "docker has no BuildKit: install its plugin buildx"
    fi
}

# Prints the engine to use. $1: build, run or check. $2: the one that was asked for, or empty.
find_engine() {
    local use=$1 wanted=$2 candidates engine problem problems=
    candidates="docker podman"
    [ "$use" != build ] || candidates+=" buildah"
    case " $candidates " in
        *" ${wanted:-docker} "*) ;;
        *) die $BAD_INPUT "engine '$wanted' can't $use here: one of $candidates" ;;
    esac
    for engine in ${wanted:-$candidates}; do
        problem=$(engine_problem "$engine" "$use")
        if [ -z "$problem" ]; then
            echo "$engine"
            return
        fi
        problems+="${problems:+; }$problem"
    done
    die $BAD_MACHINE "no container engine: $problems. Install podman 4.3 or newer" \
        "(apt-get install podman, dnf install podman), or docker 23 or newer"
}

# Ends the script if the folder $1 lies on a disk with less than $2 GiB free.
need_disk() {
    local folder=$1 free
    until [ -e "$folder" ]; do folder=$(dirname "$folder"); done
    free=$(df --output=avail -k "$folder" | tail -n 1)
    [ $((free / 1024 / 1024)) -ge "$2" ] || die $BAD_MACHINE "no disk:" \
        "$((free / 1024 / 1024)) GiB free under $folder, $2 are needed; free some, or move the" \
        "engine's store (podman: CONTAINERS_STORAGE_CONF)"
}

# The folder in which engine $1 keeps images; empty where it doesn't say or is on another machine.
engine_store() {
    case $1 in
        docker) docker info --format '{{.DockerRootDir}}' 2>/dev/null || true ;;
        podman) podman info --format '{{.Store.GraphRoot}}' 2>/dev/null || true ;;
        buildah) buildah info --format '{{.store.GraphRoot}}' 2>/dev/null || true ;;
    esac
}

# Whether docker keeps its images in containerd, as it does by default from version 29 on.
docker_has_containerd() {
    [[ $(docker info --format '{{.DriverStatus}}' 2>/dev/null) == *io.containerd.snapshotter* ]]
}

# Two builds from scratch give the same image with this engine: need_same_twice ENGINE WANTED_BY
need_same_twice() {
    [ "$1" != docker ] || docker_has_containerd ||
        die $BAD_MACHINE "$2: docker's own image store keeps the time of the build in all files;" \
            "turn docker's feature containerd-snapshotter on, or use podman"
}

# Builds without a cache, with all times set to an epoch: build_image ENGINE TAG EPOCH ARGUMENT...
build_image() {
    local engine=$1 tag=$2 epoch=$3
    shift 3
    case $engine in
        docker)
            local options=(--quiet --no-cache --pull=false --provenance=false --sbom=false
                --build-arg "SOURCE_DATE_EPOCH=$epoch") archive
            if docker_has_containerd; then
                # What it puts there itself keeps the times of the build.
                archive=$(mktemp /var/tmp/ioa-image.XXXXXX)
                if ! docker buildx build "${options[@]}" "$@" >&2 \
                    --output "type=docker,name=$tag,dest=$archive,rewrite-timestamp=true" ||
                    ! docker load --quiet --input "$archive" >&2; then
                    rm -f "$archive"
                    return 1
                fi
                rm -f "$archive"
            else
                docker buildx build "${options[@]}" --output "type=docker,name=$tag" "$@" >&2
            fi ;;
        podman | buildah)
            # chroot: needs no settings of the machine, and gives the same image everywhere.
            "$engine" build --quiet --isolation=chroot --pull=never --no-cache --layers=false \
                --format oci --timestamp "$epoch" --build-arg "SOURCE_DATE_EPOCH=$epoch" \
                --tag "$tag" "$@" >&2 ;;
    esac
}

# Pulls image $2 with engine $1. $3: what it is. $4: what to do where no registry can be reached.
pull_image() {
    local answer reason
    if answer=$("$1" pull --quiet "$2" 2>&1); then return; fi
    reason=$(tail -n 1 <<<"$answer")
    case $answer in
        *"does not match provided manifest digest"* | *"verification failed for digest"*)
            die $BAD_IMAGE "$3 $2: the registry sent another image than this digest's. $reason" ;;
        *"manifest unknown"* | *"not found"* | *"MANIFEST_UNKNOWN"*)
            die $BAD_INPUT "$3 $2: the registry has no such image; is the digest right? $reason" ;;
        *) die $BAD_MACHINE "$3 $2 can't be reached; $4. $reason" ;;
    esac
}

# The ID of an image, as sha256:...; fails if engine $1 has no image $2.
image_id() {
    local id
    case $1 in
        docker | podman) id=$("$1" image inspect --format '{{.Id}}' "$2" 2>/dev/null) ;;
        buildah) id=$(buildah inspect --type image --format '{{.FromImageID}}' "$2" 2>/dev/null) ;;
    esac || return 1
    if [ "$1" = docker ] && docker_has_containerd; then
        # There it is the digest, which depends on how the layers were compressed.
        id=$(docker save "$2" | tar --extract --to-stdout manifest.json |
            grep -oE '"Config":"[^"]*[0-9a-f]{64}' | grep -oE '[0-9a-f]{64}$')
    fi
    echo "sha256:${id#sha256:}"
}
