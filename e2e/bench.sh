#!/bin/bash
# Measures sealboot's parts, then whole commands beside the tools a user would otherwise take.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin
echo '== sector encryption on one core (openssl: AES-256-XTS, blocks of 4096 bytes)'
go test -run '^$' -bench 'Encrypt' -benchtime 1s ./luks/xts | grep -E '^Benchmark'
openssl speed -seconds 1 -bytes 4096 -evp aes-256-xts 2>/dev/null | tail -n 1 || echo 'openssl is not installed'
echo '== key server: whole exchanges'
go test -run '^$' -bench . -benchtime 2s ./keyserver | grep -E '^Benchmark'
echo '== whole commands'
go run ./e2e/bench "$@"
