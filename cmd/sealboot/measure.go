package main

import (
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sealboot/sealboot/measure"
	"github.com/sealboot/sealboot/ovmf"
)

// maxBootFile bounds a kernel or initrd.
const maxBootFile = 4 << 30

// measureFlags are the flags of `sealboot measure`, named as in sev-snp-measure.
type measureFlags struct {
	mode, ovmf, kernel, initrd, append string
	vcpus                              string
	vcpuType                           string
	vcpuSig                            uint32
	family, model, stepping            uint8
	vmm, ovmfHash, format              string
	features                           uint64
	oldHost                            bool
	svsm, varsFile                     string
	varsSize                           int64
	profiles                           string
	dumpVMSA, list, json, verbose      bool

	record, diskUUID, headerPin string
}

func (a *app) measureCommand() *cobra.Command {
	var f measureFlags
	cmd := &cobra.Command{
		Use:   "measure --mode MODE --ovmf FILE",
		Short: "Compute the launch digest of a machine",
		Long: `measure prints the digest that AMD's secure processor will have measured when a machine
starts from this firmware. Flags are those of sev-snp-measure; modes: ` + strings.Join(modeNames(), ", ") + `.
Mode snp:svsm needs --svsm and the size of the variable store, and knows no launch from an IGVM file. Without --profiles it prints what sev-snp-measure
does, which no host is known to measure: a note says so.

--vcpus takes sets (4, 1-64, 1,2,8-16) and --profiles the kinds of host that --list-profiles lists, or "all":
then one line each goes to stdout: digest, vCPUs and profile, with tabs between. With --json it is a list of objects with the
fields of the boot record's digests, the profile among them.

With --record FILE the digest is added to a boot record, which is made if it is not there;
for a new one, the disk's UUID and header pin are needed. The record is JSON: version,
firmware {sha256, size, secret_area, hashes_area}, digests [{mode, vcpus, vcpu_type, …,
digest}], disk {uuid, header_pin, content_digest}, made_with. It holds no secret, and its bytes
are fixed: a record that was edited or reformatted is refused.`,
		Example: `  sealboot measure --mode sev --ovmf firmware.fd
  sealboot measure --mode snp --ovmf firmware.fd --vcpus 4 --vcpu-type EPYC-v4 --guest-features 0x1
  sealboot measure --mode seves --ovmf firmware.fd --vcpus 4 --vcpu-type EPYC-v4 --record record.json
  sealboot measure --mode snp --ovmf firmware.fd --vcpus 1-64 --vcpu-type EPYC-v4 --profiles all --record record.json
  sealboot measure --mode snp:svsm --ovmf OVMF_CODE.fd --svsm svsm.bin --vars-file OVMF_VARS.fd --vcpus 4 --vcpu-type EPYC-v4 --profiles all
  sealboot measure --list-profiles`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(a, cmd.Flags()) },
	}
	f.register(cmd)
	cmd.AddCommand(a.measureIDBlockCommand())
	return cmd
}

func (f *measureFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.mode, "mode", "", "kind of guest: "+strings.Join(modeNames(), ", "))
	flags.StringVar(&f.ovmf, "ovmf", "", "firmware image")
	flags.StringVar(&f.kernel, "kernel", "", "kernel, with QEMU's kernel-hashes=on")
	flags.StringVar(&f.initrd, "initrd", "", "initrd (with --kernel)")
	flags.StringVar(&f.append, "append", "", "kernel command line (with --kernel)")
	flags.StringVar(&f.vcpus, "vcpus", "", "number of vCPUs, or a set of them: 1-64, or 1,2,4")
	flags.StringVar(&f.vcpuType, "vcpu-type", "", "CPU model of QEMU's, such as EPYC-v4")
	flags.Uint32Var(&f.vcpuSig, "vcpu-sig", 0, "vCPU signature (CPUID 1 EAX) instead of a type")
	flags.Uint8Var(&f.family, "vcpu-family", 0, "vCPU family, with model and stepping instead of a type")
	flags.Uint8Var(&f.model, "vcpu-model", 0, "vCPU model")
	flags.Uint8Var(&f.stepping, "vcpu-stepping", 0, "vCPU stepping")
	flags.StringVar(&f.vmm, "vmm-type", string(measure.QEMU), "hypervisor: "+strings.Join(vmmNames(), ", "))
	flags.Uint64Var(&f.features, "guest-features", 1, "SEV features of an SNP guest; mode seves does not look at them")
	flags.StringVar(&f.profiles, "profiles", "", "kinds of Linux host, separated by commas, or all")
	flags.BoolVar(&f.list, "list-profiles", false, "list the kinds of Linux host (with --json: as JSON) and do nothing else")
	flags.BoolVar(&f.json, "json", false, "print digests with what they stand for, as JSON")
	flags.StringVar(&f.svsm, "svsm", "", "Coconut-SVSM image (mode snp:svsm)")
	flags.Int64Var(&f.varsSize, "vars-size", 0, "size of the firmware's variable store in bytes (mode snp:svsm)")
	flags.StringVar(&f.varsFile, "vars-file", "", "variable store, for its size (mode snp:svsm)")
	flags.BoolVar(&f.dumpVMSA, "dump-vmsa", false, "write the measured state of the vCPUs to vmsa<N>.bin here")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "say what was computed before the digest")
	flags.BoolVar(&f.oldHost, "old-host-kernel", false, "Linux host before 6.10, which leaves the floating-point control words zero")
	flags.StringVar(&f.ovmfHash, "snp-ovmf-hash", "", "what mode "+string(measure.SNPOVMFHash)+" printed, instead of measuring the firmware's pages")
	flags.StringVar(&f.format, "output-format", "hex", "hex or base64")
	flags.StringVar(&f.record, "record", "", "boot record to add the digest to")
	flags.StringVar(&f.diskUUID, "disk-uuid", "", "UUID of the disk's LUKS header, for a new boot record")
	flags.StringVar(&f.headerPin, "header-pin", "", "header pin of the disk in hexadecimal, for a new boot record")
	for name, choices := range map[string][]string{
		"mode": modeNames(), "vcpu-type": measure.VCPUTypes(), "vmm-type": vmmNames(), "output-format": {"hex", "base64"},
	} {
		cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(choices, cobra.ShellCompDirectiveNoFileComp))
	}
}

// spec reads the files and says what is launched; once says that it is for one digest. Wrong use is told before any file
// is read.
func (f *measureFlags) spec(flags *pflag.FlagSet, once bool) (measure.Spec, error) {
	var none measure.Spec
	mode := measure.Mode(f.mode)
	cpus := mode.MeasuresVCPUs()
	switch {
	case f.mode == "" || f.ovmf == "":
		return none, usagef("--mode and --ovmf are needed")
	case mode.DigestSize() == 0:
		return none, usagef("unknown mode %q: one of %s", f.mode, strings.Join(modeNames(), ", "))
	case !slices.Contains(vmmNames(), f.vmm):
		return none, usagef("unknown hypervisor %q: one of %s", f.vmm, strings.Join(vmmNames(), ", "))
	case f.format != "hex" && f.format != "base64":
		return none, usagef("unknown output format %q: hex or base64", f.format)
	case f.kernel == "" && (f.initrd != "" || f.append != ""):
		return none, usagef("--initrd and --append need --kernel")
	case cpus && f.vcpus == "":
		return none, usagef("mode %s needs --vcpus N", f.mode)
	case f.dumpVMSA && !cpus:
		return none, usagef("--dump-vmsa: mode %s measures no vCPU", f.mode)
	case f.profiles != "" && (f.oldHost || !cpus || measure.VMM(f.vmm) != measure.QEMU):
		return none, usagef("--profiles is for modes that measure vCPUs, under QEMU, and stands in for --old-host-kernel")
	case f.json && f.format != "hex":
		return none, usagef("--json gives hexadecimal digests only")
	case (f.diskUUID != "" || f.headerPin != "") && f.record == "":
		return none, usagef("--disk-uuid and --header-pin need --record")
	}
	s := measure.Spec{
		Mode: mode, HashKernel: f.kernel != "", HasInitrd: f.initrd != "", Append: f.append,
		VMM: measure.VMM(f.vmm), GuestFeatures: f.features, OldHostKernel: f.oldHost,
	}
	if mode == measure.SEVES {
		s.GuestFeatures = 0 // a profile sets what SEV-ES has
	}
	if err := f.checkSVSM(&s, flags); err != nil {
		return none, err
	}
	if cpus && s.VMM == measure.QEMU {
		if err := f.vcpu(flags, &s); err != nil {
			return none, err
		}
	}
	var err error
	if f.ovmfHash != "" {
		if s.OVMFHash, err = hex.DecodeString(f.ovmfHash); err != nil || len(s.OVMFHash) != measure.SNP.DigestSize() || mode != measure.SNP {
			return none, usagef("--snp-ovmf-hash takes %d hexadecimal digits, in mode snp", 2*measure.SNP.DigestSize())
		}
	}
	for _, file := range []struct {
		name string
		most int64
		data *[]byte
	}{{f.ovmf, ovmf.MaxSize, &s.Firmware}, {f.kernel, maxBootFile, &s.Kernel}, {f.initrd, maxBootFile, &s.Initrd}, {f.svsm, ovmf.MaxSize, &s.SVSM}} {
		if file.name == "" {
			continue
		}
		var sum hash.Hash
		if once && file.data == &s.Firmware && (mode == measure.SEV || mode == measure.SEVES) {
			sum = sha256.New()
			s.FirmwareSHA256 = sum
		}
		if *file.data, err = readAtOnce(file.name, file.most, sum); err != nil {
			return none, err
		}
	}
	return s, nil
}

// vcpu takes the vCPU's type or signature from the one of three ways to give it.
func (f *measureFlags) vcpu(flags *pflag.FlagSet, s *measure.Spec) error {
	ways := 0
	for _, name := range []string{"vcpu-type", "vcpu-sig", "vcpu-family"} {
		if flags.Changed(name) {
			ways++
		}
	}
	if ways != 1 {
		return usagef("mode %s needs one of --vcpu-type, --vcpu-sig, --vcpu-family (with --vcpu-model, --vcpu-stepping)", f.mode)
	}
	s.VCPUType, s.VCPUSignature = f.vcpuType, f.vcpuSig
	if flags.Changed("vcpu-family") {
		s.VCPUSignature = measure.Signature(f.family, f.model, f.stepping)
	}
	if _, known := measure.VCPUSignature(f.vcpuType); f.vcpuType != "" && !known {
		return usagef("unknown vCPU type %q: one of %s", f.vcpuType, strings.Join(measure.VCPUTypes(), ", "))
	}
	return nil
}

func modeNames() (names []string) {
	for _, m := range measure.Modes() {
		names = append(names, string(m))
	}
	return names
}

func vmmNames() (names []string) {
	for _, v := range measure.VMMs() {
		names = append(names, string(v))
	}
	return names
}
