#!/usr/bin/env bash
# Runs the image, hardened, with docker or podman; `run.sh --help` tells how.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
    cat <<'TEXT'
run.sh [OPTION...] COMMAND [ARGUMENT...]

Commands; their arguments are those of what they stand for:
  bench      python -m suite run          e.g. bench --profile micro --output results
  eval       python -m suite eval
  distill    ioa distill
  suite      python -m suite
  ioa        ioa
  test       pytest, of the image's own tests
  shell      a shell

Folders, before or after the command; a path below one of them may be an argument:
  --output DIR     written to, made if it isn't there; bench, eval and distill need it. All in it
                   belongs to DIR's owner afterwards, if root calls
  --data-dir DIR   benchmarks' data, read only
  --models DIR     models, read only
  --input DIR      anything else, such as seeds and configurations, read only

Options, before the command:
  --target NAME    cpu (default), cuda or tpu: image localhost/ioa-jax:NAME, and its devices
  --image IMAGE    another image
  --engine NAME    docker or podman; default: the first that works
  --memory SIZE    default 8g, with /tmp, of which there are 2g
  --cpus NUMBER    default: all
  --pids NUMBER    processes and threads; default 1024
  --time SECONDS   default: no limit
  --no-limits      where the engine can't limit memory, cores and processes: then nothing does
  --env NAME       pass this environment variable on; may be repeated
  --allow-network  for a teacher behind an API; default: no network

Exit code: the command's; 124 after --time; 137 if it was killed, as for want of memory.
TEXT
}

target=cpu image='' wanted='' memory=8g cpus='' pids=1024 seconds=0 network=none command=''
names=() arguments=() resume=false limits=true
declare -A folders=()
while [ $# -gt 0 ]; do
    case $1 in
        --output | --data-dir | --models | --input)
            [ $# -ge 2 ] || die $BAD_INPUT "$1 needs a folder"
            folders[${1#--}]=${2%/} && shift ;;
        --output=* | --data-dir=* | --models=* | --input=*)
            name=${1%%=*} value=${1#*=}
            folders[${name#--}]=${value%/} ;;
        *)
            if [ -n "$command" ]; then
                [[ $1 != --resume* ]] || resume=true
                arguments+=("$1")
                shift
                continue
            fi
            case $1 in
                --target | --image | --engine | --memory | --cpus | --pids | --time | --env)
                    [ $# -ge 2 ] || die $BAD_INPUT "$1 needs a value" ;;&
                --target) target=$2 && shift ;;
                --image) image=$2 && shift ;;
                --engine) wanted=$2 && shift ;;
                --memory) memory=$2 && shift ;;
                --cpus) cpus=$2 && shift ;;
                --pids) pids=$2 && shift ;;
                --time) seconds=$2 && shift ;;
                --env) names+=("$2") && shift ;;
                --allow-network) network=host ;;
                --no-limits) limits=false ;;
                --help | -h) usage && exit ;;
                -*) die $BAD_INPUT "option '$1' is unknown; see --help" ;;
                *) command=$1 ;;
            esac ;;
    esac
    shift
done
check_target "$target"
[[ $seconds =~ ^[0-9]+$ ]] || die $BAD_INPUT "--time $seconds: whole seconds"

case $command in
    bench) program=(python -m suite run) ;;
    eval) program=(python -m suite eval) ;;
    distill) program=(ioa distill) ;;
    suite) program=(python -m suite) ;;
    ioa) program=(ioa) ;;
    test) program=(python -m pytest -p no:cacheprovider -m "not parity and not rebuild") ;;
    shell) program=(bash) ;;
    '') usage >&2 && exit $BAD_INPUT ;;
    *) die $BAD_INPUT "command '$command' is unknown; see --help" ;;
esac
case $command in
    bench | eval | distill)
        [ -n "${folders[output]:-}" ] || die $BAD_INPUT "$command needs --output DIR: the container" \
            "leaves nothing elsewhere"
        # A resumed run knows where it is.
        $resume || program+=(--output /output) ;;
esac

# --- folders

mounts=()
for name in "${!folders[@]}"; do
    folder=${folders[$name]:-/}
    mode=ro
    if [ "$name" = output ]; then
        mode=rw
        mkdir -p "$folder" 2>/dev/null ||
            die $BAD_INPUT "--output $folder: can't be made by $(id -un)"
        [ -w "$folder" ] || die $BAD_INPUT "--output $folder: not writable by $(id -un)"
    fi
    [ -d "$folder" ] || die $BAD_INPUT "--$name $folder: no such folder"
    path=$(cd "$folder" && pwd -P)
    folders[$name]=$path
    [[ $path != *:* ]] || die $BAD_INPUT "--$name $path: a colon in the path can't be mounted"
    # z: a label that containers may use, where SELinux is; nothing elsewhere.
    mounts+=(--volume "$path:/$name:$mode,z")
    for index in "${!arguments[@]}"; do
        argument=${arguments[$index]}
        case $argument in
            "$folder" | "$folder"/*) arguments[index]=/$name${argument#"$folder"} ;;
            *="$folder" | *="$folder"/*)
                setting=${argument%%="$folder"*}=
                value=${argument#"$setting"}
                arguments[index]=$setting/$name${value#"$folder"} ;;
        esac
    done
done
[ -z "${folders[data-dir]:-}" ] || mounts+=(--env IOA_DATA_DIR=/data-dir)

# --- engine and image

engine=$(find_engine run "$wanted")
image=${image:-localhost/ioa-jax:$target}
id=$(image_id "$engine" "$image") || die $BAD_INPUT "$engine has no image $image: build it with" \
    "containers/build.sh $target, or get a published one with containers/reproduce.sh"
digest=$("$engine" image inspect --format '{{range .RepoDigests}}{{println .}}{{end}}' "$image" |
    grep -v '^localhost/' | sed -n '1s/.*@//p') || true

# --- who it runs as

# Root's results are written by nobody, and given back afterwards.
user=$(id -u):$(id -g)
owner='' options=()
if [ "$(id -u)" = 0 ]; then
    user=65534:65534
    if [ -n "${folders[output]:-}" ]; then
        owner=$(stat --format %u:%g "${folders[output]}")
        [ -z "${SUDO_UID:-}" ] || owner=$SUDO_UID:${SUDO_GID:-$SUDO_UID}
    fi
elif [ "$engine" = podman ]; then
    options+=(--userns=keep-id)
elif docker info --format '{{.SecurityOptions}}' | grep -q rootless; then
    die $BAD_MACHINE "rootless docker would leave results that belong to another user: use podman"
fi

# --- limits

cpus=${cpus:-$(nproc)}
options+=(
    --rm --pull=never --user "$user" --network "$network"
    --read-only --tmpfs "/tmp:rw,nosuid,nodev,noexec,size=2g,mode=1777" --shm-size=64m
    --cap-drop=all --security-opt=no-new-privileges
    --ulimit nofile=4096:4096 --ulimit core=0:0 --log-driver=none
    --env "IOA_IMAGE_ID=$id" --env "IOA_IMAGE_DIGEST=$digest"
    --env HYPOTHESIS_STORAGE_DIRECTORY=/tmp/hypothesis
)
if $limits; then
    options+=(--memory "$memory" --memory-swap "$memory" --cpus "$cpus" --pids-limit "$pids")
else
    options+=(--pids-limit -1)
fi
# Without it, podman puts writable file systems over /run and /var/tmp.
[ "$engine" != podman ] || options+=(--read-only-tmpfs=false)
for name in "${names[@]}"; do
    [ -n "${!name+set}" ] || die $BAD_INPUT "--env $name: it is not set"
    options+=(--env "$name")
done

# --- devices

case $target in
    cuda)
        if [ "$engine" = docker ]; then
            options+=(--gpus all)
        else
            compgen -G '/etc/cdi/*' >/dev/null || compgen -G '/var/run/cdi/*' >/dev/null ||
                die $BAD_MACHINE "podman finds no GPU: install the NVIDIA container toolkit, then" \
                    "nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"
            options+=(--device nvidia.com/gpu=all)
        fi ;;
    tpu)
        devices=$(compgen -G '/dev/accel*' || compgen -G '/dev/vfio/*' || true)
        [ -n "$devices" ] || die $BAD_MACHINE "no TPU: neither /dev/accel* nor /dev/vfio/* is here"
        for device in $devices; do options+=(--device "$device"); done
        # libtpu locks memory, and learns of the other chips from the machine's settings.
        options+=(--ulimit memlock=-1:-1)
        for name in $(compgen -e TPU_ || true); do options+=(--env "$name"); done ;;
esac

# --- run

start=("$engine" run "${options[@]}")
if ! answer=$("${start[@]}" "$image" true 2>&1); then
    # podman's defaults ask for more than some machines may give: limits that only a fully
    # privileged root can raise, or version 2 of the kernel's control groups.
    start=(podman --runtime=runc --cgroup-manager=cgroupfs run --ulimit nproc=4096:4096
        "${options[@]}")
    if [ "$engine" = docker ] || ! command -v runc >/dev/null ||
        ! answer=$("${start[@]}" "$image" true 2>&1); then
        die $BAD_MACHINE "$engine can't start a container here: $(tail -n 1 <<<"$answer")." \
            "On a machine without version 2 of control groups, podman needs runc:" \
            "apt-get install runc"
    fi
fi

# Both engines only warn of it.
case $answer in
    *"imits are not supported"* | *"imitation discarded"*)
        ! $limits || die $BAD_MACHINE "$engine can't limit memory and processes here:" \
            "$(tail -n 1 <<<"$answer"). Without root, podman needs version 2 of control groups" \
            "for that; --no-limits goes without" ;;
esac

# podman's monitor leaves a file where it was started when memory runs out.
work=$(mktemp -d)
cd "$work"
trap 'rm -rf "$work"; [ -z "$owner" ] || chown -R "$owner" "${folders[output]}"' EXIT
if [ -n "$owner" ]; then
    chown -R "$user" "${folders[output]}"
fi

terminal=()
if [ -t 0 ] && [ -t 1 ]; then terminal=(--interactive --tty); fi
[ "$seconds" = 0 ] || program=(timeout --kill-after=10 "$seconds" "${program[@]}")
code=0
"${start[@]}" "${terminal[@]}" "${mounts[@]}" "$image" "${program[@]}" "${arguments[@]}" || code=$?
case $code in
    124) echo "run.sh: stopped after $seconds s, the limit of --time" >&2 ;;
    137)
        if $limits; then limit="the limit is --memory $memory"; else limit="there was no limit"; fi
        echo "run.sh: killed, most likely for want of memory; $limit" >&2 ;;
esac
exit $code
