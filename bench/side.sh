#!/usr/bin/env bash
# Measures peerlimit side by side with what a user would pick instead, and writes bench/results/side and the
# charts in docs/benchmarks; benchmarks.sh -write then writes docs/benchmarks.md. It takes eleven minutes, on a machine that
# does nothing else. Arguments go to bench/side.
set -euo pipefail
cd "$(dirname "$0")"
export GOTOOLCHAIN=local
programs=$(mktemp -d)
trap 'rm -rf "$programs"' EXIT

go build -o "$programs/side" ./side
go build -o "$programs/contestant" ./contestant
(cd gubernator && go build -o "$programs/gubernator" .)
machine="Go $(go version | cut -d' ' -f3 | sed s/^go//), $(nproc) cores of $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1), Linux $(uname -r)"
"$programs/side" -contestant "$programs/contestant" -gubernator "$programs/gubernator" -machine "$machine" "$@"
