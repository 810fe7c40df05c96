#!/usr/bin/env bash
# Measures how peerlimit grows, and writes bench/results/scale and curves in docs/benchmarks; benchmarks.sh -write then writes
# docs/benchmarks.md. It takes four minutes, on a machine that does nothing else. Arguments go to bench/scale.
set -euo pipefail
cd "$(dirname "$0")"
export GOTOOLCHAIN=local
temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT

go build -o "$temporary/scale" ./scale
(cd .. && go test -run '^$' -bench 'RingBuild|RingChange' -benchmem ./internal/ring) >"$temporary/rings"
machine="Go $(go version | cut -d' ' -f3 | sed s/^go//), $(nproc) cores of $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1), Linux $(uname -r)"
"$temporary/scale" -rings "$temporary/rings" -machine "$machine" "$@"
