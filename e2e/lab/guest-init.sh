#!/bin/busybox sh
# Init of the demonstration's guest. It answers a nonce from the second serial port with
# a proof that only a machine which has this root file system decrypted can make:
# SHA-256 over the nonce, the device that the root is mounted from, and a file of the root.
export PATH=/bin:/sbin
bb=/bin/busybox
[ -x $bb ] || bb=/usr/bin/busybox
$bb mountpoint -q /proc || $bb mount -t proc proc /proc
$bb mountpoint -q /sys || $bb mount -t sysfs sysfs /sys
$bb mountpoint -q /dev || $bb mount -t devtmpfs devtmpfs /dev

root=$($bb awk '$2 == "/" && $1 != "rootfs" { print $1 }' /proc/mounts)
name=$($bb cat /sys/dev/block/"$($bb mountpoint -d /)"/dm/name)
echo "guest: root is $root ($name)"

port=/dev/ttyS1
$bb stty -F $port raw -echo
exec 3<>$port
echo READY >&3
read -r nonce <&3
proof=$({ $bb printf '%s %s ' "$nonce" "$name"; $bb cat /etc/sealboot-proof; } | $bb sha256sum)
echo "PROOF ${proof%% *}" >&3
$bb sleep 0.2
$bb sync
$bb poweroff -f
