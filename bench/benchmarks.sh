#!/usr/bin/env bash
# Measures everything in docs/benchmarks.md and writes it: a quarter of an hour, on a machine that does nothing else. With -write
# it only puts the document and its charts together, from what was measured last and the prose in bench/document.
set -euo pipefail
cd "$(dirname "$0")"
export GOTOOLCHAIN=local
if [ "${1:-}" != -write ]; then
	./side.sh
	./scale.sh
fi
parts=$(mktemp -d)
trap 'rm -rf "$parts"' EXIT

last() { find "results/$1" -name '*.json' | LC_ALL=C sort | tail -1 | grep .; } # the names are times
side=$(last side)
scale=$(last scale)
go run ./side -in "$side" -document "$parts/side.md"
go run ./scale -in "$scale" -document "$parts/scale.md"
{
	cat document/head.md "$parts/side.md"
	echo
	cat "$parts/scale.md"
} >"$parts/benchmarks.md"
cat "$parts/benchmarks.md" >../docs/benchmarks.md
