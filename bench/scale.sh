#!/usr/bin/env bash
# Measures how peerlimit grows, and writes bench/results/scale, bench/results/scale.md and curves in docs/benchmarks. It takes four
# minutes, on a machine that does nothing else.
set -euo pipefail
cd "$(dirname "$0")"
export GOTOOLCHAIN=local
temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT

go build -o "$temporary/scale" ./scale
(cd .. && go test -run '^$' -bench 'RingBuild|RingChange' -benchmem .) >"$temporary/rings"
machine="Go $(go version | cut -d' ' -f3 | sed s/^go//), $(nproc) cores of $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1), Linux $(uname -r)"
"$temporary/scale" -rings "$temporary/rings" -machine "$machine" -out . "$@"
