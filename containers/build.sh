#!/usr/bin/env bash
# Builds an image with docker, podman or buildah; `build.sh --help` tells how.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
    cat <<'TEXT'
build.sh [OPTION...] [cpu|cuda|tpu]     default: cpu

  --base IMAGE     base as NAME@sha256:DIGEST, or local: a Debian that is bootstrapped here (root);
                   default: the one of images.lock.json
  --engine NAME    docker, podman or buildah; default: the first that works
  --tag NAME       name of the image; default: localhost/ioa-jax:TARGET
  --twice          build a second time from scratch, and compare the image IDs
  --archive FILE   also write an OCI archive, and the SBOM beside it
  --check          build nothing: find every wheel of the target's lock, with its hash, in the index

Prints the image's ID. A proxy's certificates are taken from the machine's bundle, or from the file
that IOA_CA_BUNDLE names.
TEXT
}

target='' base='' wanted='' tag='' archive='' twice=false check=false
while [ $# -gt 0 ]; do
    case $1 in
        --base | --engine | --tag | --archive) [ $# -ge 2 ] || die $BAD_INPUT "$1 needs a value" ;;&
        --base) base=$2 && shift ;;
        --engine) wanted=$2 && shift ;;
        --tag) tag=$2 && shift ;;
        --archive) archive=$2 && shift ;;
        --twice) twice=true ;;
        --check) check=true ;;
        --help | -h) usage && exit ;;
        -*) die $BAD_INPUT "option '$1' is unknown; see --help" ;;
        *)
            [ -z "$target" ] || die $BAD_INPUT "one target, not '$target' and '$1'"
            target=$1 ;;
    esac
    shift
done
target=${target:-cpu}
check_target "$target"
tag=${tag:-localhost/ioa-jax:$target}

lock=$containers/$(locked targets "$target" lock)
lock_sha256=$(sha256sum "$lock" | cut -d ' ' -f 1)
[ "$lock_sha256" = "$(locked targets "$target" lock_sha256)" ] ||
    die $BAD_INPUT "$lock is not the one that images.lock.json names; run containers/lock.sh"

work=$(mktemp -d /var/tmp/ioa-build.XXXXXX)
trap 'rm -rf "$work"' EXIT

if $check; then
    python3 -m venv "$work/venv"
    "$work/venv/bin/pip" install --quiet --no-deps --only-binary :all: --require-hashes \
        -r "$containers/locks/container.lock" ||
        die $BAD_MACHINE "packages can't be installed: is the package index reachable?"
    "$work/venv/bin/python" "$containers/check_lock.py" "$lock" ||
        die $BAD_IMAGE "$lock can't be installed; the messages above say why"
    exit
fi

engine=$(find_engine build "$wanted")
! $twice || need_same_twice "$engine" --twice
if [ -n "$archive" ]; then
    [ "$engine" != buildah ] || die $BAD_INPUT "--archive needs docker or podman"
    [ -d "$(dirname "$archive")" ] && [ -w "$(dirname "$archive")" ] ||
        die $BAD_INPUT "--archive $archive: its folder is not there or not writable"
fi
# Twice the size of the image: one for the layers, one for the stage that builds them.
case $target in
    cpu | tpu) gigabytes=6 ;;
    cuda) gigabytes=24 ;;
esac
need_disk "$(engine_store "$engine")" "$gigabytes"
need_disk "$work" 2

get_base() {
    if [ "$base" = local ]; then
        base_image=localhost/ioa-base:bookworm
        "$containers/base-debian.sh" "$engine" "$base_image" >&2
        base_name="Debian bookworm, bootstrapped" base_digest=$(image_id "$engine" "$base_image")
        return
    fi
    base_image=$base
    base_name=${base%@*} base_digest=${base#*@}
    image_id "$engine" "$base" >/dev/null && return
    pull_image "$engine" "$base" base "as root, --base local makes one from Debian's packages" >&2
}

base=${base:-$(locked base image)}
[[ $base = local || $base =~ @sha256:[0-9a-f]{64}$ ]] || die $BAD_INPUT "base '$base': 'local'," \
    "or an image with its digest, as NAME@sha256:64 digits; a tag alone may be another image" \
    "tomorrow"

# Tracked files as they are here, with the same modes whatever this user's umask is.
cd "$containers/.."
git rev-parse HEAD >/dev/null 2>&1 || die $BAD_INPUT "$PWD is no git checkout (of this user), so" \
    "nothing says what belongs in the image"
revision=$(git rev-parse HEAD)
[ -z "$(git status --porcelain --untracked-files=no)" ] || revision+=-dirty
mkdir "$work/context"
git ls-files -z -- .gitignore CHANGELOG.md CITATION.cff CONTRIBUTING.md LICENSE README.md pyproject.toml \
    containers docs examples ioa_jax results suite tests |
    tar --null --files-from=- --ignore-failed-read --create 2>/dev/null |
    tar --extract --directory "$work/context"
chmod -R u=rwX,go=rX "$work/context"

epoch=$(locked source_date_epoch)
bundle=${IOA_CA_BUNDLE:-/etc/ssl/certs/ca-certificates.crt}
secret=()
if [ -f "$bundle" ]; then
    secret=(--secret "id=ca_bundle,src=$bundle")
elif [ -n "${IOA_CA_BUNDLE:-}" ]; then
    die $BAD_INPUT "IOA_CA_BUNDLE=$bundle: no such file"
fi

build() {
    get_base
    build_image "$engine" "$tag" "$epoch" "${secret[@]}" --target "$target" \
        --build-arg "BASE_IMAGE=$base_image" --build-arg "BASE_NAME=$base_name" \
        --build-arg "BASE_DIGEST=$base_digest" --build-arg "REVISION=$revision" \
        --build-arg "SOURCE=$(locked source)" \
        --build-arg "VERSION=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)" \
        --build-arg "CREATED=$(date --utc --date="@$epoch" +%Y-%m-%dT%H:%M:%SZ)" \
        --build-arg "LOCK_SHA256=$lock_sha256" \
        --file "$work/context/containers/Containerfile" "$work/context" ||
        die $BAD_IMAGE "the image can't be built; the message above says why"
    image_id "$engine" "$tag"
}

id=$(build)
if $twice; then
    again=$(build)
    [ "$again" = "$id" ] || die $BAD_IMAGE "two builds differ: $id and $again"
    echo "two builds from scratch gave the same image" >&2
fi
if [ -n "$archive" ]; then
    case $engine in
        docker) docker save --output "$archive" "$tag" ;;
        podman) podman save --quiet --format oci-archive --output "$archive" "$tag" >&2 ;;
    esac
    container=$("$engine" create "$tag")
    "$engine" cp "$container:/opt/ioa/sbom/python.cdx.json" "$archive.cdx.json"
    "$engine" cp "$container:/opt/ioa/sbom/debian.txt" "$archive.debian.txt"
    "$engine" rm "$container" >/dev/null
fi
echo "$id"
