#!/bin/busybox sh
# shellcheck shell=dash disable=SC2016
# Init of the demonstration's guest. It answers a nonce from the second serial port with
# a proof that only a machine which has this root file system decrypted can make:
# SHA-256 over the nonce, the name of the device-mapper device that the root is mounted
# from, and a file of the root.
bb=/bin/busybox
[ -e /proc/self ] || $bb mount -t proc proc /proc
[ -e /sys/dev ] || $bb mount -t sysfs sysfs /sys
[ -e /dev/null ] || $bb mount -t devtmpfs devtmpfs /dev

device=$($bb awk '$5 == "/" { d = $3 } END { print d }' /proc/self/mountinfo)
if [ -e "/sys/dev/block/$device" ]; then
	name=$($bb cat "/sys/dev/block/$device/dm/name")
else # btrfs has no number of a device's
	device=$($bb readlink -f "$($bb awk '$5 == "/" { for (i = 7; $i != "-"; i++); d = $(i + 2) } END { print d }' /proc/self/mountinfo)")
	name=$($bb cat "/sys/class/block/${device##*/}/dm/name")
fi
echo "guest: root is $name ($device)"
# A root that GRUB does not read comes with a boot volume, and what sealboot put into it says so from there.
kind=$($bb awk '$5 == "/" { for (i = 7; $i != "-"; i++); print $(i + 1) }' /proc/self/mountinfo)
if [ "$kind" != ext4 ]; then
	$bb mount -o remount,rw / && /usr/lib/sealboot/sealboot-guest grow /
	$bb mount /boot
	echo "guest: file system $kind at $($bb awk '$5 == "/" { print $4 }' /proc/self/mountinfo), $($bb df -Pm / | $bb awk 'END { print $2 }') MiB, boot volume $(cd /boot && echo sealboot/*)"
fi
# A guest whose owner has it tell the key server which passphrase opened the disk.
if [ -e /etc/sealboot-confirm ]; then
	for module in net/core/failover drivers/net/net_failover drivers/net/virtio_net; do # none where the kernel has them built in
		for file in /lib/modules/*/kernel/$module.ko*; do [ -e "$file" ] && $bb insmod "$file"; done
	done
	$bb ip address add 10.0.2.15/24 dev eth0 && $bb ip link set eth0 up
	$bb sh /etc/sealboot-confirm
	code=$?
	kept=
	[ -e /run/sealboot/receipt ] && kept=', the receipt is kept'
	echo "guest: confirm: exit code $code$kept"
fi

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
