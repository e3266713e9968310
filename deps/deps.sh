#!/bin/bash
# Brings what sealboot's demo and tests need: tools from the distribution's own
# packages, and what the distribution lacks (or what must not be installed, such as
# a guest's kernel) into a folder of the project by a private apt configuration.
#
#   deps/deps.sh [--demo] [--check]
#
#   --demo    what `make demo` needs; without it, what the tests need too
#   --check   only say what is missing (exit 1 if anything is)
#
# The folder is .cache/deps unless SEALBOOT_DEPS names another. Its manifest.tsv
# lists package, version, suite and SHA-256 of everything fetched.
set -euo pipefail

top=$(cd "$(dirname "$0")/.." && pwd)
dir=${SEALBOOT_DEPS:-$top/.cache/deps}
manifest=$dir/manifest.tsv

say() { printf 'deps: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

[ "$(uname -m)" = x86_64 ] || die "this machine is $(uname -m); sealboot's firmware and guests are x86_64"
[ -r /etc/os-release ] || die "no /etc/os-release: deps.sh knows Debian 12, Debian 13 and Ubuntu 24.04"
# shellcheck disable=SC1091
. /etc/os-release
case "$ID:${VERSION_ID:-}" in
debian:12) distribution=debian12 suite=bookworm ;;
debian:13) distribution=debian13 suite=trixie ;;
ubuntu:24.04) distribution=ubuntu2404 suite=noble ;;
*) die "this is ${PRETTY_NAME:-unknown}; deps.sh knows Debian 12, Debian 13 and Ubuntu 24.04. Install by hand what README.md lists under \"Tools\"" ;;
esac

check='' demo=''
for arg; do
	case $arg in
	--check) check=yes ;;
	--demo) demo=yes ;;
	*) die "unknown argument $arg: deps.sh takes --demo and --check" ;;
	esac
done

# What is installed: a file that shows the package to be there, and the package.
installed='
/usr/bin/gcc gcc
/usr/share/doc/libc6-dev libc6-dev
/usr/bin/make make
/usr/bin/git git
/usr/bin/qemu-system-x86_64 qemu-system-x86
/usr/bin/mmdebstrap mmdebstrap
/usr/bin/newuidmap uidmap
'
tested='
/usr/bin/qemu-img qemu-utils
/sbin/cryptsetup cryptsetup-bin
/sbin/e2fsck e2fsprogs
/sbin/sgdisk gdisk
/sbin/sfdisk fdisk
/sbin/mkfs.vfat dosfstools
/usr/bin/mcopy mtools
/sbin/mkfs.xfs xfsprogs
/sbin/mkfs.btrfs btrfs-progs
/usr/bin/setfattr attr
/usr/bin/xz xz-utils
/usr/bin/cpio cpio
/usr/bin/fakeroot fakeroot
/usr/bin/zstd zstd
/usr/bin/openssl openssl
/usr/share/doc/postgresql postgresql
'
# What is fetched and unpacked, never installed: suite, package.
fetched="$suite busybox-static
$suite base-files"
case $distribution in
debian12)
	# The fetched grub-mkimage is linked against it.
	installed="$installed
/lib/x86_64-linux-gnu/libdevmapper.so.1.02.1 libdevmapper1.02.1"
	tested="$tested
/usr/bin/chromium chromium" # on Ubuntu it is a snap: the page's tests in a browser are skipped there
	fetched="$fetched
sid ovmf-amdsev
$suite-backports grub-common
$suite-backports grub-efi-amd64-bin
$suite ovmf
$suite linux-image-cloud-amd64"
	;;
debian13)
	tested="$tested
/usr/bin/chromium chromium"
	installed="$installed
/usr/bin/grub-mkimage grub-common
/usr/lib/grub/x86_64-efi/moddep.lst grub-efi-amd64-bin"
	fetched="$fetched
sid ovmf-amdsev
$suite ovmf
$suite linux-image-cloud-amd64"
	;;
ubuntu2404)
	installed="$installed
/usr/bin/grub-mkimage grub-common
/usr/lib/grub/x86_64-efi/moddep.lst grub-efi-amd64-bin"
	fetched="$fetched
$suite ovmf
$suite linux-image-virtual"
	;;
esac

[ -n "$demo" ] || installed="$installed$tested"

missing_packages() {
	printf '%s\n' "$installed" | while read -r file package; do
		[ -n "$file" ] || continue
		[ -e "$file" ] || [ -e "/usr$file" ] || printf '%s\n' "$package"
	done
}

# fetched_ok says whether everything wanted is in the manifest and unaltered.
fetched_ok() {
	[ -s "$manifest" ] || return 1
	[ "$(cat "$dir/distribution" 2>/dev/null)" = "$distribution" ] || return 1
	printf '%s\n' "$fetched" | while read -r _ package; do
		grep -q "^$package	" "$manifest" || exit 1
	done || return 1
	(cd "$dir" && sha256sum --check --quiet SHA256SUMS) >/dev/null 2>&1
}

missing=$(missing_packages | tr '\n' ' ')
if [ -n "$check" ]; then
	rc=0
	[ -z "$missing" ] || { say "not installed: $missing"; rc=1; }
	fetched_ok || { say "not fetched into $dir: $(printf '%s\n' "$fetched" | awk '{printf "%s ", $2}')"; rc=1; }
	[ $rc = 1 ] || say "nothing is missing"
	exit $rc
fi

if [ -n "$missing" ]; then
	say "installing from $PRETTY_NAME: $missing"
	sudo=
	if [ "$(id -u)" != 0 ]; then
		sudo=sudo
		command -v sudo >/dev/null || die "not root and no sudo: run as root: apt-get install --no-install-recommends $missing"
	fi
	# shellcheck disable=SC2086
	if ! $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing >/dev/null 2>&1; then
		$sudo apt-get update -q >/dev/null
		$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing >/dev/null ||
			die "apt-get install failed; its messages are above. Try: apt-get install --no-install-recommends $missing"
	fi
fi

if fetched_ok; then
	say "everything fetched is there and unaltered: $dir"
	exit 0
fi

# The mirror is the one that the machine already uses for its main archive.
# shellcheck disable=SC2016
mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 2>/dev/null |
	awk -v suite="$suite" '$2 == suite && $3 == "main" { print $1; exit }')
[ -n "$mirror" ] || die "apt knows no source of $suite main on this machine: add one, so that the rest can come from the same mirror"
case $ID in
debian) keyring=/usr/share/keyrings/debian-archive-keyring.gpg ;;
ubuntu) keyring=/usr/share/keyrings/ubuntu-archive-keyring.gpg ;;
esac
[ -r "$keyring" ] || die "$keyring is missing: apt-get install ${ID}-archive-keyring"

rm -rf "$dir.new"
mkdir -p "$dir.new"/{apt/lists/partial,apt/archives/partial,debs,root}
new=$dir.new
: >"$new/apt/status"
components=main
[ "$ID" = ubuntu ] && components='main universe'
printf '%s\n' "$fetched" | awk '{print $1}' | sort -u | while read -r s; do
	printf 'deb [arch=amd64 signed-by=%s] %s %s %s\n' "$keyring" "$mirror" "$s" "$components"
	# A package's point release may stand only among the updates.
	[ "$s" = "$suite" ] && [ "$ID" = ubuntu ] &&
		printf 'deb [arch=amd64 signed-by=%s] %s %s-updates %s\n' "$keyring" "$mirror" "$s" "$components"
	true
done >"$new/apt/sources.list"
# Options given as arguments win over the machine's own apt.conf.d, which is read too
# (it may hold a proxy).
private=(
	-o "Dir::Etc::SourceList=$new/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null
	-o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null
	-o "Dir::State=$new/apt" -o "Dir::State::Lists=$new/apt/lists" -o "Dir::State::Status=$new/apt/status"
	-o "Dir::Cache=$new/apt" -o "Dir::Cache::Archives=$new/apt/archives"
	-o Dir::Cache::PkgCache=pkgcache.bin -o Dir::Cache::SrcPkgCache=srcpkgcache.bin
	-o "APT::Sandbox::User=$(id -un)" -o APT::Architecture=amd64 -o APT::Architectures=amd64
	-o "APT::Default-Release=$suite" -o APT::Update::Post-Invoke= -o APT::Update::Post-Invoke-Success=
	-o APT::Get::AllowUnauthenticated=false -o Acquire::AllowInsecureRepositories=false
	-o Acquire::AllowWeakRepositories=false -o Acquire::Languages=none -o Acquire::GzipIndexes=false
)
trap 'rm -rf "$dir.new"' EXIT
say "reading package lists with a private apt configuration (the machine's own is not touched)"
update() { apt-get "${private[@]}" "$@" update -q >"$new/apt/log" 2>&1; }
if ! update && grep -q 'is expired' "$new/apt/log"; then
	# A mirror that stands still: its lists are signed, but old. What is fetched is written down with its SHA-256.
	say "the mirror's lists are past their date; their signatures are checked all the same: $(grep -m1 -o 'invalid since [^)]*' "$new/apt/log")"
	update -o Acquire::Check-Valid-Until=false || true
fi
if [ -z "$(find "$new/apt/lists" -name '*_Packages*' -print -quit)" ] || grep -q '^E:' "$new/apt/log"; then
	cat "$new/apt/log" >&2
	die "the lists could not be had: is the machine online?"
fi

# depends lists what a package depends on: the kernel's meta package names the one that holds it.
depends() { apt-cache "${private[@]}" --no-all-versions show "$1" 2>/dev/null | awk -F': ' '/^Depends:/ {print $2; exit}' | tr ',' '\n' | sed -E 's/^ *//; s/ .*//'; }
: >"$new/manifest.tsv"
: >"$new/SHA256SUMS"
fetch() { # suite package
	local release=$1 package=$2 version file
	local -a names
	names=("$package")
	case $package in
	linux-image-cloud-amd64) mapfile -t names < <(depends "$package" | grep '^linux-image-') ;;
	linux-image-virtual)
		mapfile -t names < <(depends "$package" | grep -E '^linux-image-[0-9]')
		names+=("${names[0]/linux-image-/linux-modules-}")
		;;
	esac
	[ "${#names[@]}" -gt 0 ] || die "$package names no kernel"
	for name in "${names[@]}"; do
		# A point release may stand under another suite's name (updates): the default release has it.
		local wanted=$name
		[ "$release" = "$suite" ] || wanted=$name/$release
		(cd "$new/apt/archives" && apt-get "${private[@]}" download -q "$wanted" >>"$new/apt/log" 2>&1) ||
			{ tail -n 5 "$new/apt/log" >&2; die "could not fetch $name from $release"; }
		file=$(find "$new/apt/archives" -maxdepth 1 -name "${name}_*.deb" -print -quit)
		[ -n "$file" ] || die "$name: apt-get download left no file"
		version=$(dpkg-deb -f "$file" Version)
		mv "$file" "$new/debs/$name.deb"
		printf '%s\t%s\t%s\t%s\t%s\n' "$package" "$name" "$version" "$release" \
			"$(sha256sum "$new/debs/$name.deb" | cut -d' ' -f1)" >>"$new/manifest.tsv"
		(cd "$new" && sha256sum "debs/$name.deb" >>SHA256SUMS)
		say "fetched $name $version ($release)"
		case $name in
		linux-* | base-files) ;; # only ever read as archives
		*) dpkg-deb -x "$new/debs/$name.deb" "$new/root" ;;
		esac
	done
}
while read -r s p; do fetch "$s" "$p"; done <<<"$fetched"
(cd "$new/root" && find . -type f -print0 | sort -z | xargs -0 sha256sum | sed 's#  \./#  root/#') >>"$new/SHA256SUMS"
rm -rf "$new/apt"
printf '%s\n' "$distribution" >"$new/distribution"
rm -rf "$dir"
mkdir -p "$(dirname "$dir")"
mv "$new" "$dir"
say "done: $dir (versions and SHA-256 in manifest.tsv)"
