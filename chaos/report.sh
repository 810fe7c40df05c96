#!/usr/bin/env bash
# Runs all scenarios of package chaos against peerlimit, those that apply against Gubernator, and writes docs/chaos.md with
# its charts. It takes half an hour, on a machine that does nothing else.
set -euo pipefail
cd "$(dirname "$0")"
export GOTOOLCHAIN=local
results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT

(cd gubernator && go build -o "$results/gubernator" .)
go test . -count=1 -run TestScenarios -timeout 1h -chaos.long -chaos.out "$results"
go test . -count=1 -run TestScenarios -timeout 1h -chaos.long -chaos.out "$results" \
	-chaos.node "$results/gubernator" -chaos.program gubernator
machine="Measured on $(date -u +%F) with $(go version | cut -d' ' -f3) on $(nproc) cores of $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1), Linux $(uname -r)."
(cd report && go run . -in "$results" -out ../../docs -machine "$machine")
