package guest

import (
	"errors"
	"strings"
	"testing"

	"github.com/sealboot/sealboot/image/disk"
)

func volume(number int, kind disk.Kind, uuid, label string) (v disk.Volume) {
	v.Number, v.FileSystem, v.UUID, v.Label = number, kind, uuid, label
	return v
}

// installed is a disk with a root, /boot and EFI partitions, a swap area, an encrypted one and one with data.
func installed() *disk.System {
	return &disk.System{
		Root: volume(3, disk.Ext4, "aaaa", "root"),
		Mounts: []disk.Mount{
			{Volume: volume(2, disk.Ext4, "bbbb", ""), Path: "/boot", Listed: true},
			{Volume: volume(1, disk.FAT, "12-34", ""), Path: "/boot/efi", Listed: true},
		},
		Others: []disk.Volume{volume(4, disk.Swap, "cccc", ""), volume(5, disk.LUKS, "dddd", ""), volume(6, disk.Ext4, "eeee", "data")},
	}
}

// foreign is installed with a root that GRUB does not read.
func foreign(kind disk.Kind, mounts ...disk.Mount) *disk.System {
	s := installed()
	s.Root.FileSystem = kind
	s.Mounts = append(s.Mounts, mounts...)
	return s
}

func TestFstab(t *testing.T) {
	ofRoot := disk.Mount{Volume: volume(3, disk.Btrfs, "aaaa", "root"), Path: "/boot", Subvolume: "/@boot", Listed: true}
	const made = "/dev/mapper/sealboot-root / ext4 errors=remount-ro 0 1\n"
	for name, c := range map[string]struct {
		system   *disk.System
		in, want string
		notes    int
	}{
		"none":              {nil, "", made, 0},
		"comments alone":    {nil, "# UNCONFIGURED FSTAB FOR BASE SYSTEM", "# UNCONFIGURED FSTAB FOR BASE SYSTEM\n" + made, 0},
		"tree":              {nil, "UUID=aaaa\t/\text4\tnoatime\t0\t1\nproc /proc proc defaults 0 0\n", "/dev/mapper/sealboot-root / ext4 noatime 0 1\nproc /proc proc defaults 0 0\n", 0},
		"tree, short":       {nil, "/dev/sda1 /\n", "/dev/mapper/sealboot-root / ext4 errors=remount-ro 0 0\n", 0},
		"tree from btrfs":   {nil, "UUID=a / btrfs subvol=@ 0 0\n", "/dev/mapper/sealboot-root / ext4 errors=remount-ro 0 0\n", 0},
		"tree, boot":        {nil, made + "UUID=b /boot ext4 defaults 0 2\nLABEL=E /boot/efi vfat umask=77 0 1\n", made + notHere + "UUID=b /boot ext4 defaults 0 2\n" + notHere + "LABEL=E /boot/efi vfat umask=77 0 1\n", 0},
		"tree, swap":        {nil, made + "/dev/vda5 none swap sw 0 0\n/swapfile none swap sw 0 0\n", made + notHere + "/dev/vda5 none swap sw 0 0\n/swapfile none swap sw 0 0\n", 0},
		"tree, data":        {nil, made + "UUID=d /srv ext4 defaults 0 2\nUUID=e /mnt ext4 nofail 0 2\n", made + "UUID=d /srv ext4 defaults 0 2\nUUID=e /mnt ext4 nofail 0 2\n", 1},
		"disk by UUID":      {installed(), "UUID=AAAA / ext4 discard 0 1\n", "UUID=AAAA / ext4 discard 0 1\n", 0},
		"disk by label":     {installed(), "LABEL=root / ext4 discard 0 1\n", "LABEL=root / ext4 discard 0 1\n", 0},
		"disk by partition": {installed(), "/dev/sda3 / ext4 discard 0 1\n", "/dev/mapper/sealboot-root / ext4 discard 0 1\n", 0},
		"disk, no root":     {installed(), "", made, 0},
		"disk, folded": {installed(), made + "UUID=bbbb /boot ext4 defaults 0 2\nUUID=12-34 /boot/efi vfat umask=77 0 1\n",
			made + inRoot + "UUID=bbbb /boot ext4 defaults 0 2\n" + inRoot + "UUID=12-34 /boot/efi vfat umask=77 0 1\n", 0},
		"disk, swap":       {installed(), made + "UUID=cccc none swap sw 0 0", made + notHere + "UUID=cccc none swap sw 0 0", 0},
		"disk, not needed": {installed(), made + "LABEL=data /srv ext4 noauto 0 0\n", made + notHere + "LABEL=data /srv ext4 noauto 0 0\n", 0},
		"disk, elsewhere":  {installed(), made + "UUID=9999 /srv ext4 defaults 0 0\nhost:/x /y nfs defaults 0 0\n", made + "UUID=9999 /srv ext4 defaults 0 0\nhost:/x /y nfs defaults 0 0\n", 0},
		"old boot volume":  {installed(), made + bootLine, made + notHere + bootLine, 0},
		"XFS": {foreign(disk.XFS), "UUID=aaaa / xfs noatime 0 0\nUUID=bbbb /boot ext4 defaults 0 2\nUUID=12-34 /boot/efi vfat x 0 1\n",
			"UUID=aaaa / xfs noatime 0 0\n" + bootLine + onBoot + "UUID=bbbb /boot ext4 defaults 0 2\n" + onBoot + "UUID=12-34 /boot/efi vfat x 0 1\n", 0},
		"XFS, no root": {foreign(disk.XFS), "# none", "# none\n/dev/mapper/sealboot-root / xfs defaults 0 0\n" + bootLine, 0},
		"XFS, no end":  {foreign(disk.XFS), "LABEL=root / xfs x", "LABEL=root / xfs x\n" + bootLine, 0},
		"Btrfs": {foreign(disk.Btrfs, ofRoot), "UUID=aaaa / btrfs subvol=@ 0 0\nUUID=aaaa /boot btrfs subvol=@boot 0 0\nUUID=aaaa /home btrfs subvol=@home 0 0\nLABEL=root /var btrfs subvol=@var 0 0\n/dev/sda3 /srv btrfs subvol=@srv 0 0\n",
			"UUID=aaaa / btrfs subvol=@ 0 0\n" + bootLine + onBoot + "UUID=aaaa /boot btrfs subvol=@boot 0 0\n/dev/mapper/sealboot-root /home btrfs subvol=@home 0 0\n" +
				"/dev/mapper/sealboot-root /var btrfs subvol=@var 0 0\n/dev/mapper/sealboot-root /srv btrfs subvol=@srv 0 0\n", 0},
		"ESP elsewhere": {foreign(disk.XFS, disk.Mount{Volume: volume(7, disk.FAT, "56-78", ""), Path: "/efi"}), "UUID=aaaa / xfs x\nUUID=56-78 /efi vfat x\n", "UUID=aaaa / xfs x\n" + bootLine + inRoot + "UUID=56-78 /efi vfat x\n", 0},
		"bind":          {installed(), made + "/srv /mnt none bind 0 0\n", made + "/srv /mnt none bind 0 0\n", 0},
	} {
		r := &rewriter{system: c.system}
		got, err := r.fstab([]byte(c.in))
		if string(got) != c.want || err != nil || len(r.notes) != c.notes {
			t.Errorf("%s: %q, %v, notes %q; want %q", name, got, err, r.notes, c.want)
		}
		again, err := (&rewriter{system: c.system}).fstab(got)
		if string(again) != string(got) || err != nil {
			t.Errorf("%s: a second time gives %q, %v", name, again, err)
		}
	}
	for _, at := range []string{"/srv", "/var\\040x"} {
		if got, err := (&rewriter{system: installed()}).fstab([]byte("LABEL=data " + at + " ext4 defaults 0 2\n")); got != nil || !errors.Is(err, ErrMounted) {
			t.Errorf("data at %s: %q, %v", at, got, err)
		}
	}
}

func TestCrypttab(t *testing.T) {
	table := "# a comment\nroot UUID=old none luks\nswap UUID=cccc /dev/urandom swap\ndata /dev/sda5 none luks\nother UUID=9999 none luks\n"
	for name, c := range map[string]struct {
		system *disk.System
		fstab  string
		gone   []string // beginnings of lines
	}{
		"disk":             {installed(), "", []string{"swap", "data"}},
		"tree":             {nil, "UUID=a / ext4\n", nil},
		"tree of LUKS":     {nil, "/dev/mapper/root / ext4 defaults 0 1\n", []string{"root"}},
		"tree of our disk": {nil, "/dev/mapper/sealboot-root / ext4 defaults 0 1\n", nil},
	} {
		want := table
		for _, line := range c.gone {
			want = strings.Replace(want, "\n"+line+" ", "\n"+notHere+line+" ", 1)
		}
		r := &rewriter{system: c.system}
		if got := r.crypttab([]byte(table), []byte(c.fstab)); string(got) != want || len(r.gone) != len(c.gone) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	// What a mapping that is gone was used for.
	r := &rewriter{system: installed()}
	r.crypttab([]byte(table), nil)
	if got, err := r.fstab([]byte("UUID=aaaa / ext4\n/dev/mapper/swap none swap sw 0 0\n")); err != nil || !strings.HasSuffix(string(got), "\n"+notHere+"/dev/mapper/swap none swap sw 0 0\n") {
		t.Errorf("encrypted swap: %q, %v", got, err)
	}
	if _, err := r.fstab([]byte("/dev/mapper/data /srv ext4 defaults 0 0\n")); !errors.Is(err, ErrMounted) {
		t.Errorf("encrypted data: %v", err)
	}
}

func FuzzTables(f *testing.F) {
	f.Add([]byte("UUID=aaaa / ext4 defaults 0 1\n/dev/sda2 /boot\tauto\n"), []byte("swap UUID=cccc x\n"))
	f.Add([]byte("\\057 \\ \\4"), []byte(" a"))
	f.Fuzz(func(t *testing.T, fstab, crypttab []byte) {
		for _, system := range []*disk.System{nil, installed(), foreign(disk.XFS)} {
			r := &rewriter{system: system}
			r.crypttab(crypttab, fstab)
			got, err := r.fstab(fstab)
			if err != nil {
				continue
			}
			if again, err := r.fstab(got); err != nil || string(again) != string(got) {
				t.Errorf("%q became %q and then %q, %v", fstab, got, again, err)
			}
		}
	})
}
