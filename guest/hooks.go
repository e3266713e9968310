package guest

import (
	_ "embed"

	"github.com/sealboot/sealboot/image/source"
)

var (
	//go:embed files/kernel-installed
	kernelInstalled []byte
	//go:embed files/kernel-removed
	kernelRemoved []byte
	//go:embed files/kernel-install
	kernelInstall []byte
	//go:embed files/dracut-module
	dracutModule []byte
	//go:embed files/dracut.conf
	dracutConf []byte
	//go:embed files/sealboot-grow.service
	growUnit []byte
	//go:embed files/local-fs.conf
	growWanted []byte
	//go:embed files/cloud-init.cfg
	cloudInit []byte
	//go:embed files/qemu-guest-agent.conf
	guestAgent []byte
)

// hooks are files for systems that have one of the marks: hooks in the proper sense, units, settings.
var hooks = []struct {
	marks []string // paths
	path  string
	mode  uint32
	text  *[]byte
	note  string // for people
}{
	// Debian, Ubuntu: Debian kernel handbook, 4.2, "Kernel hooks". Last, behind what makes the distribution's initramfs.
	{[]string{"/etc/kernel/postinst.d", "/var/lib/dpkg"}, "/etc/kernel/postinst.d/zz-sealboot", 0o755, &kernelInstalled, ""},
	{[]string{"/etc/kernel/postinst.d", "/var/lib/dpkg"}, "/etc/kernel/postrm.d/zz-sealboot", 0o755, &kernelRemoved, ""},
	// update-initramfs(8): run with the version after an initramfs was made.
	{[]string{"/etc/initramfs-tools"}, "/etc/initramfs/post-update.d/sealboot", 0o755, &kernelInstalled, ""},
	// kernel-install(8): plugins of /etc come with those of the distribution, in the order of their names.
	{[]string{"/usr/lib/kernel/install.d", "/lib/kernel/install.d"}, "/etc/kernel/install.d/95-sealboot.install", 0o755, &kernelInstall, ""},
	// dracut.modules(7), dracut.conf(5).
	{[]string{"/usr/lib/dracut"}, "/usr/lib/dracut/modules.d/99sealboot/module-setup.sh", 0o755, &dracutModule, ""},
	{[]string{"/usr/lib/dracut"}, "/etc/dracut.conf.d/90-sealboot.conf", 0o644, &dracutConf, ""},
	{systemd, "/etc/systemd/system/sealboot-grow.service", 0o644, &growUnit, ""},
	{systemd, "/etc/systemd/system/local-fs.target.d/sealboot-grow.conf", 0o644, &growWanted, ""},
	// Both do what the host says, as root.
	{[]string{"/usr/bin/cloud-init"}, "/etc/cloud/cloud.cfg.d/99-sealboot.cfg", 0o644, &cloudInit,
		"cloud-init takes no configuration from the host: what it would bring has to be in the image"},
	{[]string{"/usr/sbin/qemu-ga", "/usr/bin/qemu-ga"}, "/etc/systemd/system/qemu-guest-agent.service.d/sealboot.conf", 0o644, &guestAgent,
		"qemu-guest-agent is turned off, since the host could run programs through it"},
}

var systemd = []string{"/usr/lib/systemd/systemd", "/lib/systemd/systemd"}

func hooksFor(found *facts) (files []source.File, notes []string) {
	for _, h := range hooks {
		for _, mark := range h.marks {
			if found.have[mark] {
				files = append(files, source.File{Path: h.path, Mode: h.mode, Content: *h.text})
				if h.note != "" {
					notes = append(notes, h.note)
				}
				break
			}
		}
	}
	return files, notes
}
