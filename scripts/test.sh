#!/usr/bin/env bash
# Run the tests; --slow runs the slow ones as well, anything else goes to pytest (a file, -k name, -x, -n 0 …).
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

# A process a core, at most four: most of the time goes into compiling graphs, which one core does.  A file stays in one
# process, as its tests share what they have trained.
prepare_environment quickstart,data,dev
exec "$python" -m pytest -n logical --maxprocesses 4 --dist loadfile ${words[@]+"${words[@]}"}
