package launch

import (
	"fmt"
	"strings"
)

// probeArgs start a QEMU that only answers what the host can do.
func probeArgs(socket string) []string {
	return []string{
		"-machine", "none", "-accel", "kvm", "-nodefaults", "-no-user-config", "-display", "none", "-S",
		"-qmp", "unix:" + escape(socket) + ",server=on,wait=off",
	}
}

// guest is what the launch itself adds to a Spec.
type guest struct {
	policy                   uint32
	platform                 *platform
	dhCert, session, control string // files and socket
}

// args is the machine's command line. SEV wants virtio's modern form with the IOMMU's addresses, so that
// devices only see memory that the guest shares, and no option ROM, which would be the host's code in the
// guest (QEMU docs/system/i386/amd-memory-encryption). The firmware cannot be written, since its
// variables would be the host's. A reset would start the firmware again without its secret, so that a
// reboot ends the machine.
func (s Spec) args(g guest) []string {
	a := []string{
		"-machine", "q35,confidential-guest-support=sev0", "-accel", "kvm", "-cpu", s.CPUModel,
		"-smp", fmt.Sprint(s.CPUs), "-m", s.Memory,
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-S",
		"-object", fmt.Sprintf("sev-guest,id=sev0,policy=%#x,cbitpos=%d,reduced-phys-bits=%d,dh-cert-file=%s,session-file=%s",
			g.policy, g.platform.cBit, g.platform.reducedBits, escape(g.dhCert), escape(g.session)),
		"-drive", "if=pflash,unit=0,format=raw,readonly=on,file=" + escape(s.Firmware),
		"-drive", "if=none,id=disk0,format=" + s.DiskFormat + ",file=" + escape(s.Disk),
		"-device", "virtio-blk-pci,drive=disk0,disable-legacy=on,iommu_platform=on,romfile=",
		"-qmp", "unix:" + escape(g.control) + ",server=on,wait=off",
	}
	if s.QMP != "" {
		a = append(a, "-qmp", "unix:"+escape(strings.TrimPrefix(s.QMP, "unix:"))+",server=on,wait=off")
	}
	switch socket, isSocket := strings.CutPrefix(s.Serial, "unix:"); {
	case s.Serial == "none" || s.Serial == "stdio":
		a = append(a, "-serial", s.Serial)
	case isSocket:
		a = append(a, "-chardev", "socket,id=serial0,path="+escape(socket)+",server=on,wait=off", "-serial", "chardev:serial0")
	default:
		a = append(a, "-chardev", "file,id=serial0,path="+escape(s.Serial), "-serial", "chardev:serial0")
	}
	return append(a, s.Extra...)
}

// escape keeps a path's commas from ending an option's value (QEMU doubles them).
func escape(path string) string { return strings.ReplaceAll(path, ",", ",,") }
