#!/usr/bin/env bash
# Train a PanGu-α; with no argument, the quickstart on this machine's CPU.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: ./run_train.sh [--config FILE] [--device cpu|gpu|ascend] [--rank-table FILE | --workers N] [key.sub=value ...]

Trains a PanGu-α. Without --config it is the quickstart: some minutes on two CPU cores, from the Chinese text of an
installed package to a trained model, its loss curve, its perplexity and lines that it wrote. A run that is laid out
on several devices is launched on this node's part of them; start the same command on every node.

What is needed is installed first: into .venv, or, if the active environment already has MindSpore, beside it.
PYTHON=/path/to/python3.11 names the interpreter to use. Every option of `pangu-alpha launch` may be given.

examples:
  ./run_train.sh
  ./run_train.sh name=short train.steps=100
  ./run_train.sh --config configs/quickstart.yaml 'data.sources=[my-texts/]' name=mine
  ./run_train.sh --device cpu --workers 2 name=two
  ./run_train.sh --config configs/runs/2.6b_8.yaml --rank-table hccl_8p.json
  ./run_train.sh --config configs/runs/13b_16.yaml --workers 16 --local-workers 8 --master 10.0.0.1 --node-rank 1
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
exec "$python" -m pangu_alpha.cli.main launch ${config[@]+"${config[@]}"} "$@"
