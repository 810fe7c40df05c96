#!/usr/bin/env bash
# Measures everything in docs/benchmarks.md and writes it: a quarter of an hour, on a machine that does nothing else. With -write
# it only puts the document together from what was measured last.
set -euo pipefail
cd "$(dirname "$0")"
if [ "${1:-}" != -write ]; then
	./side.sh
	./scale.sh
fi
{
	cat head.md
	cat results/side.md
	echo
	cat results/scale.md
} >../docs/benchmarks.md
