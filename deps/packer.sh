#!/bin/bash
# Builds HashiCorp's Packer from its Go module, for the test of the plugin in packer/, into .cache/packer, and prints the program's
# name. Nothing of it is shipped. 1.9.4 is the last release under the MPL. Its own go.sum pins what it is built from.
set -euo pipefail

version=v1.9.4
# As the checksum database of Go modules has it.
sum=h1:r/n4mYlRHzTEmn8iDgoYlratNXEFtzMzzXQM0Puh2dI=
top=$(cd "$(dirname "$0")/.." && pwd)
program=$top/.cache/packer/$version/packer

if [ ! -x "$program" ]; then
	echo "deps: building Packer $version: 250 MB of modules, and some minutes" >&2
	module=$(cd / && go mod download -json "github.com/hashicorp/packer@$version")
	field() { sed -n "s/^\t\"$1\": \"\(.*\)\",*\$/\1/p" <<<"$module"; }
	[ "$(field Sum)" = "$sum" ] || { echo "deps: Packer $version has the checksum $(field Sum), not $sum" >&2; exit 1; }
	mkdir -p "$(dirname "$program")"
	(cd "$(field Dir)" && CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$program.new" .)
	mv "$program.new" "$program"
fi
echo "$program"
