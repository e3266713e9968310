package disk

import (
	"errors"
	"testing"

	"github.com/sealboot/sealboot/image/partition"
)

// TestMountedSubvolume has /boot in the root's own file system: in Btrfs that is another subvolume, elsewhere nothing.
func TestMountedSubvolume(t *testing.T) {
	for kind, want := range map[Kind]string{Btrfs: "/@boot", Ext4: ""} {
		root := Volume{Partition: partition.Partition{Number: 2}, FileSystem: kind, UUID: "abcd"}
		d := &Disk{Volumes: []Volume{root}}
		m, err := d.mounted(root, parseFstab([]byte("UUID=abcd /boot/ auto noatime,subvol=@boot 0 0\n")), "/boot")
		if want == "" && (m != nil || !errors.Is(err, ErrMount)) || want != "" && (err != nil || m.Subvolume != want || m.Number != 2 || !m.Listed) {
			t.Errorf("%s: %+v, %v", kind, m, err)
		}
		if m, err := d.mounted(root, parseFstab([]byte("UUID=abcd /boot auto noatime\n")), "/boot"); m != nil || !errors.Is(err, ErrMount) {
			t.Errorf("%s without a subvolume: %+v, %v", kind, m, err)
		}
	}
}
