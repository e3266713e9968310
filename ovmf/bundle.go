package ovmf

import (
	"errors"
	"fmt"
	"slices"

	"github.com/sealboot/sealboot/internal/guid"
)

// Files that take part in what the firmware boots.
var (
	grubGUID = guid.MustParse("b5ae312c-bc8a-43b1-9c62-ebb826dd5d07") // edk2 OvmfPkg/OvmfPkg.dec, gGrubFileGuid

	// applications of edk2 that a build for AMD SEV carries without starting them by itself.
	knownApplications = []guid.GUID{
		guid.MustParse("462caa21-7614-4503-836e-8ab6f4662331"), // MdeModulePkg/Application/UiApp
		guid.MustParse("eec25bdc-67f2-4d95-b1d5-f81b2039d11d"), // MdeModulePkg/Application/BootManagerMenuApp
	}
	// kernelLoader takes the kernel that the host gives with -kernel; the boot manager tries it before
	// GRUB. It checks against the kernel-hashes area: without one nothing is checked.
	kernelLoader = guid.MustParse("806040ca-dad9-4978-a3b4-2d2ab0c8a48f") // OvmfPkg/QemuKernelLoaderFsDxe

	// fileSystems are drivers with which the boot manager finds a loader on a disk. GRUB brings its own.
	fileSystems = []guid.GUID{
		guid.MustParse("961578fe-b6b7-44c3-af35-6bc705cd2b1f"), // FatPkg/EnhancedFatDxe
		guid.MustParse("905f13b0-8f91-4b0a-bd76-e1e78f9422e4"), // MdeModulePkg/Universal/Disk/UdfDxe
		guid.MustParse("7bd9ddf7-8b83-488e-aec9-24c78610289c"), // OvmfPkg/VirtioFsDxe
	}

	// shells, whatever their file's type.
	shells = []guid.GUID{
		guid.MustParse("7c04a583-9e3e-4f1c-ad65-e05268d0b4d1"), // ShellPkg/Application/Shell
		guid.MustParse("c57ad6b7-0515-40a8-9d21-551652854e37"), // EdkShellBinPkg
	}
)

// ErrNoGRUB says that the firmware has no file that GRUB could replace.
var ErrNoGRUB = errors.New("firmware has no file for GRUB: it must be a build for AMD SEV (OVMF.amdsev.fd), whose boot manager starts nothing else")

// BootPathError is something in the firmware, other than GRUB, that the host could have booted.
type BootPathError struct {
	GUID   guid.GUID
	Name   string    // the file's name for people, if it has one
	Volume guid.GUID // the volume's name
}

func (e *BootPathError) Error() string {
	return fmt.Sprintf("firmware holds another way to boot, file %v %q in volume %v: use a build without it", e.GUID, e.Name, e.Volume)
}

// Bundle puts a GRUB EFI application into a firmware image, in place of the (often empty) one that
// is there. It refuses firmware that is not OVMF (ErrNotOVMF), has no secret area
// (ErrNoSecretArea) or no place for GRUB (ErrNoGRUB), that could boot something else
// (*BootPathError), an application that is none (ErrNotEFIApplication) or too large
// (*TooLargeError), and anything malformed (*FormatError). Nothing else in the image moves.
//
// Drivers of file systems are taken out: when GRUB gives up before its module runs (a host needs only
// give the machine too little memory), the boot manager goes on to the disks that the host attached,
// and with the secret in memory nothing may be found there that can be started.
func Bundle(firmware, grubEFI []byte) ([]byte, error) {
	img, err := Parse(firmware)
	if err != nil {
		return nil, err
	}
	if _, ok := img.SecretArea(); !ok {
		return nil, ErrNoSecretArea
	}
	if err := checkEFIApplication(grubEFI); err != nil {
		return nil, fmt.Errorf("GRUB: %w", err)
	}
	t, err := Unpack(firmware)
	if err != nil {
		return nil, err
	}
	if err := t.checkBootPaths(img); err != nil {
		return nil, err
	}
	t.takeOutFileSystems()
	v, old := t.grub()
	if old == nil {
		return nil, ErrNoGRUB
	}
	file, err := old.withApplication(grubEFI)
	if err != nil {
		return nil, err
	}
	if err := v.replaceLast(old, file); err != nil {
		return nil, err
	}
	out, err := t.Pack()
	if err != nil {
		return nil, err
	}
	if err := checkBundled(img, out); err != nil {
		return nil, err
	}
	return out, nil
}

// takeOutFileSystems makes pad files of the drivers, so that nothing else moves.
func (t *Tree) takeOutFileSystems() {
	for _, v := range t.Packed() {
		for i, f := range v.Files {
			if slices.Contains(fileSystems, f.GUID) {
				v.Files[i] = f.pad()
			}
		}
	}
}

// checkBundled reads the result as a hypervisor will: same size, same table, same metadata.
func checkBundled(before *Image, out []byte) error {
	after, err := Parse(out)
	if err != nil {
		return fmt.Errorf("bundled firmware: %w", err)
	}
	if len(out) != len(before.data) || !slices.EqualFunc(before.entries, after.entries, func(a, b Entry) bool {
		return a.GUID == b.GUID && string(a.Data) == string(b.Data)
	}) || !slices.Equal(before.metadata, after.metadata) {
		return errors.New("bundled firmware: its tables are not those of the firmware that went in")
	}
	return nil
}

// grub finds GRUB's file and the volume that it stands in.
func (t *Tree) grub() (*Volume, *File) {
	for _, v := range t.Packed() {
		for _, f := range v.Files {
			if f.GUID == grubGUID {
				return v, f
			}
		}
	}
	return nil, nil
}

// checkBootPaths refuses firmware that could boot anything but GRUB.
func (t *Tree) checkBootPaths(img *Image) error {
	if paths := t.bootPaths(img); len(paths) > 0 {
		return paths[0]
	}
	return nil
}

// bootPaths finds shells, applications that are not known, volumes inside volumes that were not
// looked into, a loader for kernels that it cannot check, and a second GRUB.
func (t *Tree) bootPaths(img *Image) []*BootPathError {
	_, checksKernels := img.HashesArea()
	var paths []*BootPathError
	found := false
	for _, v := range t.Volumes() {
		for _, f := range v.Files {
			bad := slices.Contains(shells, f.GUID) || f.GUID == kernelLoader && !checksKernels
			switch {
			case f.GUID == grubGUID:
				bad = bad || found || f.Type != fileApplication
				found = true
			case f.Type == fileApplication:
				bad = bad || !slices.Contains(knownApplications, f.GUID)
			case f.Type == fileVolumeImage:
				bad = bad || f != t.main
			}
			if bad {
				paths = append(paths, &BootPathError{GUID: f.GUID, Name: f.uiName(), Volume: v.Name})
			}
		}
	}
	return paths
}

// application gives the EFI application in a file.
func (f *File) application() ([]byte, error) {
	sections, i, err := f.applicationSection()
	if err != nil {
		return nil, err
	}
	return sections[i].data, nil
}

// applicationSection finds the one section of a file that holds an EFI application.
func (f *File) applicationSection() (sections []section, index int, err error) {
	where := fmt.Sprintf("file %v", f.GUID)
	if sections, err = parseSections(f.Body, where); err != nil {
		return nil, 0, err
	}
	index = -1
	for i, s := range sections {
		if s.kind != sectionPE32 {
			continue
		}
		if index >= 0 {
			return nil, 0, &FormatError{where, 0, "a second application in it"}
		}
		index = i
	}
	if index < 0 {
		return nil, 0, &FormatError{where, 0, "no application in it"}
	}
	return sections, index, nil
}

// withApplication gives the file with another application in it.
func (f *File) withApplication(application []byte) (*File, error) {
	sections, i, err := f.applicationSection()
	if err != nil {
		return nil, err
	}
	sections[i].data = application
	file := &File{GUID: f.GUID, Type: f.Type, Attributes: f.Attributes, Body: encodeSections(sections)}
	if f.Attributes&(fileFixed|fileAlignment) != 0 { // it is moved behind the others
		return nil, &FormatError{fmt.Sprintf("file %v", f.GUID), 19, fmt.Sprintf("attributes %#x tie it to its place", f.Attributes)}
	}
	if file.size() > maxFileSize {
		return nil, &TooLargeError{Volume: "firmware file with this GRUB", Need: file.size(), Room: maxFileSize}
	}
	return file, nil
}

// replaceLast takes old out and puts file behind the last one. The place of old becomes a pad
// file, so that nothing else moves; where it was the last one, it becomes free space, so that
// replacing again gives what replacing once would have given.
func (v *Volume) replaceLast(old, file *File) error {
	files, free := slices.Clone(v.Files), v.Free
	if i := slices.Index(files, old); i == len(files)-1 {
		files, free = files[:i], free+align(old.size(), 8)
	} else {
		files[i] = old.pad()
	}
	if need := align(file.size(), 8); need > free {
		return &TooLargeError{Volume: fmt.Sprintf("firmware volume %v with this GRUB", v.Name), Need: need, Room: free}
	}
	v.Files, v.Free = append(files, file), free-align(file.size(), 8)
	return nil
}
