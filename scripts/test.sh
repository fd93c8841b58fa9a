#!/usr/bin/env bash
# Run the tests; --slow runs the slow ones as well, anything else goes to pytest (a file, -k name, -x …).
set -euo pipefail

cd "$(dirname "$0")/.."
source scripts/environment.sh

words=()
for word in "$@"; do
    case $word in
        -h | --help)
            sed -n '2s/^# //p' scripts/test.sh
            exit 0
            ;;
        --slow) words+=(-m "slow or not slow") ;;
        *) words+=("$word") ;;
    esac
done

prepare_environment quickstart,data,dev
exec "$python" -m pytest ${words[@]+"${words[@]}"}
