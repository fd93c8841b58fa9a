#!/usr/bin/env bash
# Train a PanGu-α; with no argument, the quickstart on this machine's CPU.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: ./run_train.sh [--config FILE] [key.sub=value ...]

Trains a PanGu-α. Without --config it is the quickstart: some minutes on two CPU cores, from the Chinese text of an
installed package to a trained model, its loss curve, its perplexity and lines that it wrote.

What is needed is installed first: into .venv, or, if the active environment already has MindSpore, beside it.
PYTHON=/path/to/python3.11 names the interpreter to use. Every option of `pangu-alpha train` may be given.

examples:
  ./run_train.sh
  ./run_train.sh train.steps=100
  ./run_train.sh --config configs/quickstart.yaml 'data.sources=[my-texts/]' name=mine
TEXT
}

config=(--config "$(dirname "$0")/configs/quickstart.yaml")
for word in "$@"; do
    case $word in
        -h | --help)
            usage
            exit 0
            ;;
        --config | --config=*) config=() ;;
    esac
done

source "$(dirname "$0")/scripts/environment.sh"
prepare_environment quickstart
exec "$python" -m pangu_alpha.cli.main train ${config[@]+"${config[@]}"} "$@"
