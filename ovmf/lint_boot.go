package ovmf

import (
	"bytes"
	"slices"

	"github.com/sealboot/sealboot/internal/guid"
)

var (
	bootManager = guid.MustParse("6d33944a-ec75-4855-a54d-809c75241f6c") // MdeModulePkg/Universal/BdsDxe

	// hashesTableGUIDs are what a loader that checks a kernel has to know
	// (OvmfPkg/AmdSev/BlobVerifierLibSevHashes/BlobVerifierSevHashes.c).
	hashesTableGUIDs = []guid.GUID{
		guid.MustParse("9438d606-4f22-4cc9-b479-a793d411fd21"), // the table
		guid.MustParse("4de79437-abd2-427f-b835-d5b172d2045b"), // kernel
		guid.MustParse("44baf731-3a2f-4bd7-9af1-41e29169781d"), // initrd
		guid.MustParse("97d02dd8-bd20-4c94-aa78-e7714d36ab2a"), // command line
	}
)

// legacyLoader is in the messages of boot managers with a second loader for the host's kernel, one that
// goes past the check of hashes (OvmfPkg/Library/X86QemuLoadImageLib, since 2025).
var legacyLoader = []byte("legacy linux kernel loader")

// mentions says whether code holds a GUID, whole or as the two halves that a compiler makes of it.
func mentions(code []byte, id guid.GUID) bool {
	return bytes.Contains(code, id[:8]) && bytes.Contains(code, id[8:])
}

// lintBoot looks at everything that can be started.
func (r *LintReport) lintBoot(t *Tree, img *Image, o LintOptions) {
	const most = 16 // findings
	for i, p := range t.bootPaths(img) {
		switch {
		case i >= most:
		case slices.Contains(shells, p.GUID):
			r.add("shell", Unfit, "UEFI shell: file %v %q in volume %v", p.GUID, p.Name, p.Volume)
		case p.GUID == kernelLoader: // said below
		default:
			r.add("boot-path", Unfit, "another way to boot: file %v %q in volume %v", p.GUID, p.Name, p.Volume)
		}
	}
	var managers, loaders []*File
	for _, v := range t.Volumes() {
		for _, f := range v.Files {
			if slices.Contains(fileSystems, f.GUID) {
				r.add("boot-fallback", Unfit, "file system driver %q: disks of the host can be booted when GRUB gives up", f.uiName())
			}
			switch f.GUID {
			case bootManager:
				managers = append(managers, f)
			case kernelLoader:
				loaders = append(loaders, f)
			}
		}
	}
	if len(managers) != 1 {
		r.add("boot-manager", Unfit, "%d boot managers (BdsDxe), not one", len(managers))
	} else if !mentions(managers[0].Body, grubGUID) {
		r.add("boot-manager", Unfit, "the boot manager does not know GRUB's place")
	} else if bytes.Contains(managers[0].Body, legacyLoader) {
		r.add("boot-manager", Unfit, "the boot manager falls back to a loader for kernels that checks nothing")
	}
	r.lintLoaders(loaders, img, o)
	for _, p := range t.parts {
		if p.volume == nil && !isErased(p.raw) && bytes.Count(p.raw, []byte{0}) != len(p.raw) {
			r.add("unlisted-data", Warning, "%d bytes of data that belong to no volume", len(p.raw))
		}
	}
}

// lintLoaders judges the loader of kernels that the host gives. Where it checks hashes, a host that
// gives a kernel but no hashes is refused by the loader, and one that gives hashes changes the launch
// digest: then all hangs on which digests the owner accepts. Where it checks nothing, the host's kernel
// runs under the firmware's own digest.
func (r *LintReport) lintLoaders(loaders []*File, img *Image, o LintOptions) {
	_, hasHashes := img.HashesArea()
	if len(loaders) == 0 {
		if o.KernelHashes {
			r.add("hashes-area", Unfit, "no loader for a kernel that the host gives")
		}
		return
	}
	for _, f := range loaders {
		checks := true
		for _, id := range hashesTableGUIDs {
			checks = checks && mentions(f.Body, id)
		}
		switch {
		case !hasHashes:
			r.add("kernel-loader", Unfit, "a loader for the host's kernel, and no area for hashes to check it against")
		case !checks:
			r.add("kernel-loader", Unfit, "a loader for the host's kernel that does not know the table of hashes: it checks nothing")
		case !o.KernelHashes:
			r.add("kernel-loader", Note, "a loader for the host's kernel, which checks it against hashes that are measured")
		}
	}
}
