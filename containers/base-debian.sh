#!/usr/bin/env bash
# Bootstraps a Debian base image for containers/build.sh where no registry can be reached.
#
#   base-debian.sh ENGINE TAG
#
# Needs root and mmdebstrap. DEBIAN_MIRROR names another mirror than Debian's own. Two runs give the
# same image as long as the mirror has the same packages.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

[ $# = 2 ] || die $BAD_INPUT "usage: base-debian.sh ENGINE TAG"
engine=$1 tag=$2
[ "$(id -u)" = 0 ] || die $BAD_MACHINE "a base can only be bootstrapped by root: use sudo, or a" \
    "base from a registry"
command -v mmdebstrap >/dev/null ||
    die $BAD_MACHINE "mmdebstrap is not installed: apt-get install mmdebstrap"

work=$(mktemp -d /var/tmp/ioa-base.XXXXXX)
trap 'rm -rf "$work"' EXIT
SOURCE_DATE_EPOCH=$(locked source_date_epoch)
export SOURCE_DATE_EPOCH

# Unpacking is three times as fast in memory, where there is enough.
scratch=$work
if [ -d /dev/shm ] && [ "$(df --output=avail -k /dev/shm | tail -n 1)" -gt 2000000 ]; then
    scratch=/dev/shm
fi
# Manuals and translations are left out, licences are not. The installer of Python's packages is
# compiled while it runs, and not always to the same bytes.
# shellcheck disable=SC2016  # mmdebstrap gives $1 to the hook.
TMPDIR=$scratch mmdebstrap --quiet --mode=root --variant=minbase --skip=output/dev \
    --include=python3,python3-venv,ca-certificates \
    --aptopt='APT::Install-Recommends "false"' \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    --customize-hook='rm -r "$1/usr/share/python3/debpython/__pycache__"' \
    bookworm "$work/rootfs.tar" ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"} ||
    die $BAD_MACHINE "Debian's packages could not be had: set DEBIAN_MIRROR to a mirror that" \
        "can be reached"

cat >"$work/Containerfile" <<'CONTAINERFILE'
FROM scratch
ADD rootfs.tar /
ENV PATH=/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8
CMD ["python3"]
CONTAINERFILE
build_image "$engine" "$tag" "$SOURCE_DATE_EPOCH" -f "$work/Containerfile" "$work"
