package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealboot/sealboot/grub"
	"github.com/sealboot/sealboot/guest"
	"github.com/sealboot/sealboot/image"
	"github.com/sealboot/sealboot/image/source"
	"github.com/sealboot/sealboot/initramfs"
	"github.com/sealboot/sealboot/internal/atomicfile"
	"github.com/sealboot/sealboot/internal/cli"
	"github.com/sealboot/sealboot/measure"
	"github.com/sealboot/sealboot/ovmf"
)

// What build makes, in its output folder.
const (
	diskFile       = "disk.qcow2"
	firmwareFile   = "firmware.fd"
	recordFile     = "record.json"
	passphraseFile = "passphrase"
)

// buildFlags are the flags of sealboot build.
type buildFlags struct {
	source, output           string
	size                     cli.ByteSize
	keyFile, firmware, agent string
	guest, tools             string
	appended, label          string
	vcpus, vcpuType          string
	profiles                 string
	kernels                  []string
	rootPartition            int
	rootSubvolume            string
	bootSize                 cli.ByteSize
	allRoot, asJSON          bool
	shape                    shapeFlags
}

func (a *app) buildCommand() *cobra.Command {
	var f buildFlags
	cmd := &cobra.Command{
		Use:   "build --source PATH --size SIZE --output DIR",
		Short: "Make an encrypted disk, the firmware that unlocks it, and their boot record",
		Long: `build takes a root file system, as a folder, a tar archive, a container image or a disk image, with a
kernel under /boot as distributions name it (vmlinuz-VERSION) and its modules under /lib/modules, both of which
may come from --kernel. A disk's root stays as it is, block for block: ext4, into which is put what it mounts at /boot and
/boot/efi; or XFS or Btrfs, which GRUB does not read here and nothing is written into, behind a boot volume in ext4 that the guest
mounts at /boot. What the guest needs is added: an initramfs for each kernel, programs and hooks that make one for
each new kernel, entries of /etc/fstab. build makes in DIR:

  disk.qcow2    the encrypted disk, for the host
  firmware.fd   OVMF with GRUB inside, for the host
  record.json   launch digests and what identifies the disk; no secret; for the key server
  passphrase    what opens the disk, readable by you alone; for the key server, and your safe

Nothing of these may exist. Neither root nor loop devices are needed. gcc, GRUB 2.12 or newer and an OVMF
built for AMD SEV are: those under --tools, laid out as the root of a file system, or the machine's.

--json prints {"disk", "firmware", "record", "passphrase", "disk_uuid", "header_pin", "content_digest",
"digests": [{"mode", "vcpus", "profile", "digest"}], "kernels", "seconds": {stage: number}} on standard output.`,
		Example: `  sealboot build --source rootfs.tar --size 8G --output web1
  sealboot build --source rootfs/ --size 20G --output web1 --append "console=ttyS0 quiet" --vcpus 1-8`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.build(cmd.Context(), f) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.source, "source", "", "root file system: a folder, a tar archive, a container image (OCI layout or archive) or a disk image (raw, QCOW2)")
	flags.IntVar(&f.rootPartition, "root-partition", 0, "number of a disk image's partition that is the root (default: found by type, label or content)")
	rootFlags(cmd, &f.rootSubvolume, &f.bootSize)
	flags.StringArrayVar(&f.kernels, "kernel", nil, "add the kernel and modules of this Debian package, folder or archive; may be repeated")
	flags.StringVar(&f.output, "output", "", "folder for what is made; it is created")
	flags.Var(&f.size, "size", "size of the disk, as 4G or 512M; may be left out for a disk image")
	flags.StringVar(&f.keyFile, "key-file", "", "use this passphrase, - for standard input (default: 256 random bits)")
	flags.StringVar(&f.firmware, "firmware", "", "OVMF image for AMD SEV to put GRUB into (default: the distribution's)")
	flags.StringVar(&f.agent, "agent", "", "sealboot-agent program for the guest (default: the one beside sealboot)")
	flags.StringVar(&f.guest, "guest", "", "sealboot-guest program for the guest (default: the one beside sealboot)")
	flags.StringVar(&f.tools, "tools", "", "folder with GRUB and OVMF, laid out as the root of a file system")
	flags.StringVar(&f.appended, "append", "console=ttyS0", "words to add to the kernel's command line")
	flags.StringVar(&f.label, "label", "", "label of the root file system")
	flags.BoolVar(&f.allRoot, "all-root", false, "give every file to root, as for a folder that an ordinary user unpacked")
	flags.StringVar(&f.vcpus, "vcpus", "1", "numbers of processors that the guest may have, as 4 or 1-64, for the digests of SEV-ES and SNP")
	flags.StringVar(&f.profiles, "profiles", "all", "kinds of Linux host that may start it, for the same (sealboot measure --list-profiles)")
	flags.StringVar(&f.vcpuType, "vcpu-type", "EPYC-v4", "QEMU's processor model, for the digests of SEV-ES and SNP")
	f.shape.add(cmd)
	flags.BoolVar(&f.asJSON, "json", false, "print what was made as JSON")
	cmd.RegisterFlagCompletionFunc("vcpu-type", cobra.FixedCompletions(measure.VCPUTypes(), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (a *app) build(ctx context.Context, f buildFlags) error {
	b, err := a.newBuild(f)
	if err != nil {
		return err
	}
	result, err := b.run(ctx)
	if err != nil {
		b.discard()
		return err
	}
	for _, name := range []string{result.Disk, result.Firmware, result.Record, result.Passphrase} {
		fmt.Fprintf(a.stderr, "made %s\n", name)
	}
	fmt.Fprintf(a.stderr, "next: sealboot keyserver register --record %s --key-file %s --name NAME --store DIR\n", result.Record, result.Passphrase)
	if f.asJSON {
		out := json.NewEncoder(a.stdout)
		out.SetIndent("", "  ")
		return out.Encode(result)
	}
	return nil
}

// buildRun is one build under way.
type buildRun struct {
	app        *app
	flags      buildFlags
	source     source.Source
	done       func() error // when source is read no more
	passphrase []byte
	tools      grub.Tools
	firmware   []byte
	vcpus      []int
	profiles   []measure.Profile
	guest      guest.Spec
	made       []string // files and the folder, to be removed after a failure
	seconds    map[string]float64
}

// newBuild checks everything that can be checked before the work begins.
func (a *app) newBuild(f buildFlags) (*buildRun, error) {
	if f.source == "" || f.output == "" || f.size == 0 && isTree(f.source) {
		return nil, cli.Usagef("--source, --size and --output are all needed")
	}
	if err := (grub.Config{Append: f.appended}).Validate(); err != nil {
		return nil, cli.Usagef("--append: %w", err)
	}
	b := &buildRun{app: a, flags: f, seconds: map[string]float64{}}
	var err error
	for _, name := range []string{diskFile, firmwareFile, recordFile, passphraseFile} {
		path := filepath.Join(f.output, name)
		if _, err := os.Lstat(path); err == nil {
			return nil, fmt.Errorf("%s is already there: choose another --output, or remove it if nobody needs that disk any more", path)
		} else if !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	if info, err := os.Stat(f.source); err == nil && info.IsDir() && os.Geteuid() != 0 && !f.allRoot {
		fmt.Fprintf(a.stderr, "sealboot: files in %s keep the owners that they have here: --all-root gives them to root\n", f.source)
	}
	var roots []string
	if f.tools != "" {
		roots = append(roots, f.tools)
	}
	if b.tools, err = grub.FindTools(roots...); err != nil {
		return nil, err
	}
	if b.firmware, err = readFirmware(f.firmware, roots); err != nil {
		return nil, err
	}
	if b.vcpus, err = cli.ParseVCPUs(f.vcpus); err != nil {
		return nil, err
	}
	if b.profiles, err = measure.FindProfiles(f.profiles); err != nil {
		return nil, cli.Usagef("--profiles: %w", err)
	}
	launch := b.launch(measure.SEVES, b.firmware)
	launch.VCPUs = slices.Max(b.vcpus)
	if err := launch.Validate(); err != nil {
		return nil, cli.Usagef("--vcpus and --vcpu-type: %w", err)
	}
	if b.guest.Agent, err = readProgram("sealboot-agent", "agent", f.agent); err != nil {
		return nil, err
	}
	if b.guest.Program, err = readProgram("sealboot-guest", "guest", f.guest); err != nil {
		return nil, err
	}
	if f.keyFile != "" {
		b.passphrase, err = cli.ReadKeyFile(f.keyFile, a.stdin)
	} else {
		b.passphrase, err = newPassphrase(rand.Reader)
	}
	if err != nil {
		return nil, err
	}
	if b.guest.System, err = image.FindSystem(b.spec()); err == nil {
		if err = (grub.Config{Append: b.appended()}).Validate(); err == nil {
			b.source, b.done, err = image.OpenTree(b.spec())
		}
	}
	if err != nil {
		clear(b.passphrase)
		return nil, err
	}
	return b, nil
}

// isTree says whether the disk's size has to be given, since the source has no file system of a size.
func isTree(path string) bool {
	_, err := source.Open(path)
	return !errors.Is(err, source.ErrExt4) && !errors.Is(err, source.ErrUnknown)
}

// spec says what disk to make, without the files that are made for it.
func (b *buildRun) spec() image.Spec {
	f := b.flags
	return image.Spec{
		Source: f.source, Size: int64(f.size), Kernels: f.kernels, RootPartition: f.rootPartition, RootSubvolume: f.rootSubvolume,
		BootSize: int64(f.bootSize), Label: f.label, AllRoot: f.allRoot,
	}
}

func (b *buildRun) run(ctx context.Context) (*built, error) {
	defer clear(b.passphrase)
	defer b.done()
	if _, err := os.Stat(b.flags.output); errors.Is(err, os.ErrNotExist) {
		if err := os.Mkdir(b.flags.output, 0o755); err != nil {
			return nil, err
		}
		b.made = append(b.made, b.flags.output)
	}
	var inside *guest.Result
	err := b.stage("initramfs", func() (err error) {
		inside, err = b.prepare(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	// The passphrase is safe on disk before anything is encrypted with it.
	if err := b.write(passphraseFile, b.passphrase, 0o600); err != nil {
		return nil, err
	}
	var disk *image.Result
	if err := b.stage("disk", func() (err error) {
		disk, err = b.disk(ctx, inside.Files)
		return err
	}); err != nil {
		return nil, err
	}
	var info *grub.Info
	var firmware []byte
	if err := b.stage("grub", func() (err error) {
		firmware, info, err = b.bundle(ctx, disk.DiskUUID)
		return err
	}); err != nil {
		return nil, err
	}
	var record *measure.Record
	if err := b.stage("measure", func() (err error) {
		record, err = b.record(firmware, disk, info, inside.Kernels)
		return err
	}); err != nil {
		return nil, err
	}
	encoded, err := record.Encode()
	if err != nil {
		return nil, err
	}
	if err := errors.Join(b.write(firmwareFile, firmware, 0o644), b.write(recordFile, encoded, 0o644)); err != nil {
		return nil, err
	}
	return b.result(disk, record, inside.Kernels), nil
}

// prepare makes what the guest needs, beside its own files.
func (b *buildRun) prepare(ctx context.Context) (*guest.Result, error) {
	made, err := guest.Prepare(ctx, b.source, b.guest)
	if err != nil {
		return nil, fmt.Errorf("prepare %s: %w", b.flags.source, err)
	}
	if len(made.Kernels) == 0 {
		return nil, fmt.Errorf("%s holds no kernel under /boot (vmlinuz-VERSION), so its disk could not boot: install one in it, such as Debian's linux-image-amd64", b.flags.source)
	}
	for _, note := range made.Notes {
		fmt.Fprintf(b.app.stderr, "sealboot: %s\n", note)
	}
	return made, nil
}

func (b *buildRun) disk(ctx context.Context, files []image.File) (*image.Result, error) {
	path := filepath.Join(b.flags.output, diskFile)
	made, err := sourceDate()
	if err != nil {
		return nil, err
	}
	spec := b.spec()
	spec.Files, spec.Time, spec.Output = files, made, b.flags.shape.output()
	spec.LUKS.KDF = b.app.kdfFor(b.passphrase, 0)
	result, err := b.app.buildImage(ctx, spec, b.passphrase, path)
	if err == nil {
		b.made = append(b.made, path)
	}
	return result, err
}

// appended are words for the kernel's command line: those that the root needs, and then, since the last of several counts, the owner's.
func (b *buildRun) appended() string {
	if b.guest.System == nil {
		return b.flags.appended
	}
	return strings.TrimSpace(b.guest.System.KernelWords() + " " + b.flags.appended)
}

// bundle makes the firmware that unlocks the disk.
func (b *buildRun) bundle(ctx context.Context, diskUUID string) ([]byte, *grub.Info, error) {
	efi, info, err := grub.Build(ctx, grub.Config{DiskUUID: diskUUID, Append: b.appended()}, b.tools)
	if err != nil {
		return nil, nil, fmt.Errorf("build GRUB: %w", err)
	}
	firmware, err := ovmf.Bundle(b.firmware, efi)
	if err != nil {
		return nil, nil, fmt.Errorf("put GRUB into the firmware: %w", err)
	}
	return firmware, info, nil
}

func (b *buildRun) record(firmware []byte, disk *image.Result, info *grub.Info, kernels []initramfs.Kernel) (*measure.Record, error) {
	base := sha256.Sum256(b.firmware)
	madeWith := map[string]string{
		"sealboot":             cli.Version(),
		"grub":                 info.GRUBVersion,
		"grub_modules_sha256":  info.ModulesSHA256,
		"grub_config_sha256":   info.ConfigSHA256,
		"grub_sha256":          info.SHA256,
		"compiler":             info.CompilerVersion,
		"firmware_base_sha256": hex.EncodeToString(base[:]),
		"kernels":              strings.Join(versions(kernels), " "),
	}
	record, err := measure.NewRecord([]measure.Spec{{Mode: measure.SEV, Firmware: firmware}}, measure.Disk{
		UUID: disk.DiskUUID, HeaderPin: measure.Hash(disk.HeaderPin), ContentDigest: measure.Hash(disk.ContentDigest),
	}, madeWith)
	if err != nil {
		return nil, err
	}
	for _, mode := range []measure.Mode{measure.SEVES, measure.SNP} {
		set, err := measure.DigestSet(b.launch(mode, firmware), b.vcpus, b.profiles)
		if err != nil {
			return nil, fmt.Errorf("measure mode %s: %w", mode, err)
		}
		if err := record.AddSet(firmware, set); err != nil {
			return nil, err
		}
	}
	return record, nil
}

// launch is how a guest of a mode is started, but for the number of its processors and the kind of host.
func (b *buildRun) launch(mode measure.Mode, firmware []byte) measure.Spec {
	spec := measure.Spec{Mode: mode, Firmware: firmware, VCPUType: b.flags.vcpuType}
	if mode == measure.SNP {
		spec.GuestFeatures = 1
	}
	return spec
}

func (b *buildRun) write(name string, data []byte, perm os.FileMode) error {
	path := filepath.Join(b.flags.output, name)
	if err := atomicfile.WriteFile(path, data, perm); err != nil {
		return err
	}
	b.made = append(b.made, path)
	return nil
}

// discard removes what was made, so that a failed build leaves nothing behind.
func (b *buildRun) discard() {
	for i := len(b.made) - 1; i >= 0; i-- {
		os.Remove(b.made[i])
	}
}

func (b *buildRun) stage(name string, work func() error) error {
	begun := time.Now()
	err := work()
	b.seconds[name] = time.Since(begun).Seconds()
	return err
}
