#!/bin/bash
# Fuzzes every parser of the project, one after the other, for the given time each (20s).
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:-20s}
count=0
while read -r package; do
	while read -r target; do
		printf '%s %s\n' "$package" "$target"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 10x "$package"
		count=$((count + 1))
	done < <(go test -list '^Fuzz' "$package" | grep '^Fuzz' || true)
done < <(go list ./...)
[ "$count" -gt 0 ] || { echo 'fuzz.sh: no fuzz target was found' >&2; exit 1; }
echo "$count targets fuzzed for $time each"
