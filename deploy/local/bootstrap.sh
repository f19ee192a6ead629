#!/bin/bash
# Installs what is missing on a Debian 12, and nothing else: bootstrap.sh run|test|check
#
# System packages come by apt, Python's from requirements.lock into .shepherd/venv; both at the same time.
# Called again it only compares a stamp.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

purpose="${1:?run, test or check}"
venv=.shepherd/venv
stamp="$venv/.installed"
policy=/usr/sbin/policy-rc.d

main() {
    local wanted missing apt=""
    wanted="$(fingerprint)"
    missing="$(missing_packages)"
    if [[ -z $missing && "$(cat "$stamp" 2>/dev/null)" == "$wanted" ]]; then
        return
    fi
    mkdir -p .shepherd/log
    if [[ -n $missing ]]; then
        forbid_service_starts
        update_apt
        install_python_venv
        install_packages "$missing" &
        apt=$!
    fi
    if [[ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]]; then
        install_python_packages
        echo "$wanted" >"$stamp"
    fi
    [[ -z $apt ]] || wait "$apt"
}

fingerprint() {
    cat requirements.lock pyproject.toml "${BASH_SOURCE[0]}" | sha256sum | cut -d' ' -f1
    # An editable install names this folder.
    pwd
}

missing_packages() {
    local packages=""
    if [[ $purpose != check && -z ${SHEPHERD_BROKER_URL:-} && ! -x /usr/sbin/rabbitmq-server ]]; then
        packages+=" rabbitmq-server"
    fi
    if [[ $purpose == test ]]; then
        compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || packages+=" postgresql"
        command -v chromium >/dev/null || packages+=" chromium"
        command -v ip >/dev/null || packages+=" iproute2"
        compgen -G '/usr/lib/*/faketime/libfaketimeMT.so.1' >/dev/null || packages+=" libfaketime"
    fi
    if [[ ! -x $venv/bin/python ]] && ! "$(python)" -c 'import ensurepip, venv' 2>/dev/null; then
        packages+=" python3-venv"
    fi
    echo "$packages"
}

python() {
    local candidate
    for candidate in python3.11 python3 python3.12 python3.13; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    fail "Python 3.11 or later is needed."
}

# Debian starts a service as soon as it is installed. These are only wanted as programs: Shepherd starts its own.
forbid_service_starts() {
    if [[ ! -e $policy ]]; then
        as_root tee "$policy" >/dev/null <<<$'#!/bin/sh\nexit 101'
        as_root chmod +x "$policy"
        trap 'as_root rm -f "$policy"' EXIT
    fi
}

update_apt() {
    echo "Reading the package lists (apt-get update) …"
    as_root apt-get update -qq >>.shepherd/log/install.log 2>&1 || fail "apt-get update failed"
}

# First and alone: it takes seconds, and Python's packages can be fetched while apt goes on.
install_python_venv() {
    if [[ $missing == *python3-venv* ]]; then
        missing="${missing/python3-venv/}"
        install_packages python3-venv
    fi
}

install_packages() {
    [[ -n ${1// /} ]] || return 0
    echo "Installing by apt:$(printf ' %s' $1) …"
    # shellcheck disable=SC2086  # one word a package
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
        -o DPkg::Lock::Timeout=120 -o Dpkg::Options::=--force-unsafe-io $1 \
        >>.shepherd/log/install.log 2>&1 || fail "apt-get install$1 failed"
}

install_python_packages() {
    echo "Installing Python packages into $venv …"
    [[ -x $venv/bin/python ]] || "$(python)" -m venv "$venv"
    {
        install_with_uv || install_with_pip
    } >>.shepherd/log/install.log 2>&1 || fail "the Python packages could not be installed"
}

# pip needs one to two minutes for the lock, uv ten seconds.
install_with_uv() {
    local uv=("$venv/bin/uv" pip install --quiet --python "$venv/bin/python")
    "$venv/bin/pip" install --quiet --disable-pip-version-check "$(grep '^uv==' requirements.lock)" &&
        "${uv[@]}" --compile-bytecode -r requirements.lock &&
        "${uv[@]}" --no-deps --no-build-isolation -e .
}

install_with_pip() {
    echo "uv did not work; trying pip"
    "$venv/bin/pip" install --quiet --no-compile -r requirements.lock &&
        "$venv/bin/pip" install --quiet --no-deps --no-build-isolation -e .
}

as_root() {
    if [[ $EUID == 0 ]]; then
        "$@"
    else
        sudo "$@"
    fi
}

fail() {
    echo "$1; see .shepherd/log/install.log" >&2
    exit 1
}

main
