# shellcheck shell=bash disable=SC2034 # $python is for whoever sources this
# Sourced by run_train.sh and scripts/test.sh.  `prepare_environment EXTRAS` leaves in $python an interpreter that
# holds this checkout with those extras:
#   1. the active one, if it is ready;
#   2. the active one, if it has MindSpore: that is kept as it is, and only what is missing is added
#      (beside it, in .venv, if it is the system's own Python);
#   3. .venv, made if it is not there, with the tried versions of constraints.txt.
# PYTHON=/path/to/python3.11 names the interpreter to start from.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
command_name=$(basename "$0")
wheels="3.10, 3.11, 3.12" # Pythons that MindSpore 2.10 has wheels for; requires-python in pyproject.toml says the same
tried=$(sed -n 's/^mindspore==//p' "$root/constraints.txt")

fail() {
    echo "$command_name: $*" >&2
    exit 1
}

version_of() { # "3.11" for an interpreter that runs, nothing for one that does not
    "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true
}

has_wheels() { # is there a MindSpore for this interpreter?
    local version
    version=$(version_of "$1")
    [[ -n $version && ", $wheels," == *", $version,"* ]]
}

check() { # check PYTHON QUESTION [EXTRAS]
    "$1" "$root/scripts/check_environment.py" "${@:2}"
}

has_mindspore() {
    check "$1" mindspore >/dev/null
}

find_python() { # an interpreter to make .venv with
    local candidate found=""
    if [[ -n ${PYTHON:-} ]]; then
        has_wheels "$PYTHON" || fail "PYTHON=$PYTHON is Python $(version_of "$PYTHON"); MindSpore has wheels for Python $wheels"
        echo "$PYTHON"
        return
    fi
    for candidate in python3 python3.11 python3.12 python3.10; do
        if has_wheels "$candidate"; then
            echo "$candidate"
            return
        fi
        [[ -z $(version_of "$candidate") ]] || found="$candidate is Python $(version_of "$candidate"); "
    done
    fail "${found:-no python3 found; }MindSpore has wheels for Python $wheels: install one of these," \
        "or name it: PYTHON=/path/to/python3.11 $0"
}

make_venv() { # make_venv PYTHON [--system-site-packages]
    echo "$command_name: making .venv with $1 (Python $(version_of "$1"))"
    if ! "$1" -m venv "${@:2}" "$root/.venv"; then
        rm -rf "$root/.venv"
        fail "$1 cannot make a virtual environment; install its venv module (Debian and Ubuntu: apt install python3-venv)"
    fi
}

install_all() { # install_all PYTHON EXTRAS: with the tried versions
    echo "$command_name: installing; the first time takes some minutes, MindSpore alone is 800 MB"
    "$1" -m pip install --disable-pip-version-check -c "$root/constraints.txt" -e "${root}[$2]" ||
        fail "installing into $1 failed; the lines above say why; run the same command again to go on"
}

install_missing() { # install_missing PYTHON EXTRAS: nothing that is there changes
    local pins missing
    echo "$command_name: MindSpore $(check "$1" mindspore) of $1 is used as it is (tried: $tried); adding what is missing"
    pins=$(mktemp)
    check "$1" pins >"$pins"
    missing=$(check "$1" missing "$2")
    {
        "$1" -m pip install --disable-pip-version-check --no-deps -e "$root" &&
            { [[ -z $missing ]] || "$1" -m pip install --disable-pip-version-check -c "$pins" -r /dev/stdin <<<"$missing"; }
    } || fail "adding to $1 failed; the lines above say why"
    rm -f "$pins"
}

prepare_environment() { # prepare_environment EXTRAS
    local extras=$1 active=${PYTHON:-python3} venv=$root/.venv/bin/python
    if has_wheels "$active"; then
        if check "$active" ready "$extras"; then
            python=$active
            return
        fi
        if has_mindspore "$active" && check "$active" isolated; then
            install_missing "$active" "$extras"
            python=$active
            return
        fi
    fi
    if [[ ! -x $venv ]]; then
        local maker
        maker=$(find_python)
        if has_mindspore "$maker"; then
            make_venv "$maker" --system-site-packages
        else
            make_venv "$maker"
        fi
    fi
    has_wheels "$venv" || fail ".venv has no Python that MindSpore has wheels for ($wheels); remove it: rm -r $root/.venv"
    if grep -qi 'include-system-site-packages = true' "$root/.venv/pyvenv.cfg" && has_mindspore "$venv"; then
        check "$venv" ready "$extras" || install_missing "$venv" "$extras"
    else
        check "$venv" current "$extras" || install_all "$venv" "$extras"
    fi
    python=$venv
}
