#!/bin/sh
# What the lab's Debian runs once it has booted: it says on the console what state it is in, answers a nonce from the
# second serial port as guest-init.sh does, and then upgrades its kernel and reboots, or powers off.
systemctl is-system-running --wait >/dev/null
device=$(readlink -f "$(findmnt -n -v -o SOURCE /)") # btrfs has no number of a device's
name=$(cat "/sys/class/block/${device##*/}/dm/name")
new=$(ls /var/lib/lab/*.deb 2>/dev/null)
{
	echo "guest: state $(systemctl is-system-running), failed: $(systemctl --failed --no-legend --plain | cut -d' ' -f1 | tr '\n' ' ')"
	echo "guest: root /dev/mapper/$name, $(dmsetup table --target crypt 2>/dev/null | cut -d' ' -f4-5)"
	echo "guest: options $(findmnt -n -o OPTIONS /)"
	echo "guest: kind $(findmnt -n -o FSTYPE /) $(findmnt -n -o FSROOT /), boot $(findmnt -n -o SOURCE,FSTYPE /boot | tr -s ' ')"
	echo "guest: kernel $(uname -r)"
	echo "guest: blocks $(df -B1M --output=size / | tail -n 1)"
	echo "guest: host $(ls /run/from-the-host /etc/from-the-host 2>/dev/null | wc -l) files, $(swapon --show --noheadings | wc -l) swap areas"
} >/dev/console

port=/dev/ttyS1
stty -F $port raw -echo
exec 3<>$port
echo READY >&3
read -r nonce <&3
proof=$({ printf '%s %s ' "$nonce" "$name"; cat /etc/sealboot-proof; } | sha256sum)
echo "PROOF ${proof%% *}" >&3

if [ -n "$new" ]; then
	# shellcheck disable=SC2086
	if DEBIAN_FRONTEND=noninteractive dpkg -i $new >/dev/console 2>&1 && rm $new; then
		echo "guest: upgraded, with $(cd /boot/sealboot && echo *)" >/dev/console
	fi
	systemctl reboot
else
	systemctl poweroff
fi
