package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sealboot/sealboot/internal/cli"
	"github.com/sealboot/sealboot/measure"
	"github.com/sealboot/sealboot/ovmf"
	"github.com/sealboot/sealboot/sev"
)

type verifyFlags struct {
	keys        keyFlags
	measurement string
	policy      string
	api         sev.API

	digest, record           string
	firmware, kernel, initrd string
	append                   string
	vcpus                    int
	vcpuType                 string
	vcpuSig                  uint32
	vmsa0, vmsa1             string
	asJSON                   bool
}

func (a *app) sevVerifyCommand() *cobra.Command {
	var f verifyFlags
	cmd := &cobra.Command{
		Use:   "verify-measurement --tik FILE --measurement M --policy POLICY --api-major N --api-minor N --build-id N --firmware FILE",
		Short: "Judge a launch measurement",
		Long: `verify-measurement says whether a launch measurement is of the machine that you expect, in the session
whose keys you hold. The measurement is what QMP's query-sev-launch-measure (or virsh domlaunchsecinfo)
gives in base64, or a file with it. Policy is the one that the session was made with; API and build are
what the host says: the measurement matches only if that is true.

What is expected comes from --firmware, with --kernel, --initrd, --append for QEMU's kernel-hashes=on
and, for a policy with es, --vcpus with --vcpu-type or the vCPUs' states in files; or from a boot record (--record, any of its digests);
or from --launch-digest in hexadecimal or base64.

Exit code 3: it does not match. --json prints {"match", "digest", "policy", "api"}; digest is the one
that fits, or "".`,
		Example: `  sealboot sev verify-measurement --tik vm_tik.bin --measurement BASE64 --policy 0x0b --api-major 1 --api-minor 55 --build-id 21 --firmware firmware.fd
  sealboot sev verify-measurement --tk tmp_tk.bin --measurement file --policy nodbg,es --api-major 1 --api-minor 55 --build-id 21 --record record.json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.sevVerify(f) },
	}
	f.keys.add(cmd)
	flags := cmd.Flags()
	// The names that sevctl and virt-qemu-sev-validate have for the same.
	flags.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		switch name {
		case "cmdline":
			name = "append"
		case "num-cpus":
			name = "vcpus"
		}
		return pflag.NormalizedName(name)
	})
	flags.StringVarP(&f.measurement, "measurement", "m", "", "the launch measurement: base64, or a file")
	flags.StringVar(&f.policy, "policy", "", "the session's policy, a number or names")
	flags.Uint8Var(&f.api.Major, "api-major", 0, "major version of the platform's SEV API (query-sev)")
	flags.Uint8Var(&f.api.Minor, "api-minor", 0, "minor version of the platform's SEV API")
	flags.Uint8Var(&f.api.Build, "build-id", 0, "build of the platform's SEV firmware")
	flags.StringVar(&f.digest, "launch-digest", "", "expected launch digest")
	flags.StringVar(&f.record, "record", "", "boot record with the expected launch digests")
	flags.StringVarP(&f.firmware, "firmware", "f", "", "firmware image, to compute the digest from")
	flags.StringVarP(&f.kernel, "kernel", "k", "", "kernel, with QEMU's kernel-hashes=on")
	flags.StringVarP(&f.initrd, "initrd", "r", "", "initrd (with --kernel)")
	flags.StringVarP(&f.append, "append", "e", "", "kernel command line (with --kernel); --cmdline is the same")
	flags.IntVarP(&f.vcpus, "vcpus", "n", 0, "number of vCPUs, for a policy with es; --num-cpus is the same")
	flags.StringVar(&f.vcpuType, "vcpu-type", "", "CPU model of QEMU's, such as EPYC-v4, for a policy with es")
	flags.Uint32Var(&f.vcpuSig, "vcpu-sig", 0, "vCPU signature (CPUID 1 EAX) instead of a type")
	flags.StringVar(&f.vmsa0, "vmsa-cpu0", "", "file with the first vCPU's state (VMSA), instead of a type")
	flags.StringVar(&f.vmsa1, "vmsa-cpu1", "", "file with every other vCPU's state")
	flags.BoolVar(&f.asJSON, "json", false, "print the answer as JSON")
	for _, name := range []string{"measurement", "policy", "api-major", "api-minor", "build-id"} {
		cmd.MarkFlagRequired(name)
	}
	cmd.RegisterFlagCompletionFunc("vcpu-type", cobra.FixedCompletions(measure.VCPUTypes(), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (a *app) sevVerify(f verifyFlags) error {
	policy, err := sev.ParsePolicy(f.policy)
	if err != nil {
		return usagef("--%v", err)
	}
	if err := f.check(policy); err != nil {
		return err
	}
	measurement, err := cli.ReadMeasurement(f.measurement)
	if err != nil {
		return err
	}
	digests, err := f.digests(policy)
	if err != nil {
		return err
	}
	session, err := f.keys.session(policy, false)
	if err != nil {
		return err
	}
	defer session.Wipe()
	verdict := fmt.Errorf("%w: it is of another machine, session, policy or API than these; %d digests were tried", sev.ErrMeasurement, len(digests))
	found := ""
	for _, digest := range digests {
		err := session.VerifyMeasurement(measurement, f.api, digest)
		if err == nil {
			verdict, found = nil, hex.EncodeToString(digest[:])
			break
		}
		if !errors.Is(err, sev.ErrMeasurement) {
			verdict = err // it matches, and the policy forbids this platform
			break
		}
	}
	if f.asJSON {
		err = a.printJSON(struct {
			Match  bool   `json:"match"`
			Digest string `json:"digest"`
			Policy string `json:"policy"`
			API    string `json:"api"`
		}{verdict == nil, found, fmt.Sprintf("%#x", uint32(policy)), fmt.Sprintf("%d.%d.%d", f.api.Major, f.api.Minor, f.api.Build)})
	} else if verdict == nil {
		_, err = fmt.Fprintf(a.stdout, "match: launch digest %s\n", found)
	}
	if err != nil {
		return err
	}
	if verdict != nil {
		return refusef("%w", verdict)
	}
	return nil
}

// check finds wrong use before any file is read.
func (f verifyFlags) check(policy sev.Policy) error {
	ways := 0
	for _, value := range []string{f.digest, f.record, f.firmware} {
		if value != "" {
			ways++
		}
	}
	measured := f.kernel != "" || f.initrd != "" || f.append != "" || f.vcpus != 0 || f.vcpuType != "" || f.vcpuSig != 0 || f.vmsa0 != "" || f.vmsa1 != ""
	_, known := measure.VCPUSignature(f.vcpuType)
	switch {
	case ways != 1:
		return usagef("what is expected comes from one of --firmware, --record, --launch-digest")
	case f.firmware == "" && measured:
		return usagef("kernel and vCPUs go with --firmware")
	case f.kernel == "" && (f.initrd != "" || f.append != ""):
		return usagef("--initrd and --append need --kernel")
	case f.firmware != "" && policy.Has(sev.ES) && (f.vcpus < 1 || f.vcpuWays() != 1):
		return usagef("a policy with es needs --vcpus, and one of --vcpu-type, --vcpu-sig, --vmsa-cpu0: the vCPUs are measured")
	case f.vmsa1 != "" && f.vmsa0 == "", f.vmsa0 != "" && (f.vmsa1 != "") != (f.vcpus > 1):
		return usagef("--vmsa-cpu0 is the first vCPU's state, --vmsa-cpu1 that of all others, if --vcpus says that there are")
	case f.vcpus > maxStates:
		return usagef("--vcpus %d: at most %d", f.vcpus, maxStates)
	case f.vcpuType != "" && !known:
		return usagef("unknown vCPU type %q", f.vcpuType)
	}
	return nil
}

// maxStates bounds the vCPUs whose states are hashed, as the measure package does.
const maxStates = 4096

func (f verifyFlags) vcpuWays() int {
	ways := 0
	for _, given := range []bool{f.vcpuType != "", f.vcpuSig != 0, f.vmsa0 != ""} {
		if given {
			ways++
		}
	}
	return ways
}

// digests gives what is expected; more than one where the host's kernel or the record leaves a choice.
func (f verifyFlags) digests(policy sev.Policy) ([]sev.Digest, error) {
	mode := measure.SEV
	if policy.Has(sev.ES) {
		mode = measure.SEVES
	}
	switch {
	case f.digest != "":
		if raw, err := hex.DecodeString(f.digest); err == nil && len(raw) == len(sev.Digest{}) {
			return []sev.Digest{sev.Digest(raw)}, nil
		}
		raw, err := sev.DecodeFile("digest", []byte(f.digest), len(sev.Digest{}))
		if err != nil || len(f.digest) == len(raw) {
			return nil, usagef("--launch-digest is neither 64 hexadecimal digits nor base64 of 32 bytes")
		}
		return []sev.Digest{sev.Digest(raw)}, nil
	case f.record != "":
		record, err := cli.ReadRecord(f.record)
		if err != nil {
			return nil, err
		}
		var out []sev.Digest
		for _, d := range record.Digests {
			if d.Mode == mode {
				out = append(out, sev.Digest(d.Digest))
			}
		}
		if len(out) == 0 {
			return nil, refusef("%s holds no digest of mode %s, which the policy asks for: sealboot measure --record adds one", f.record, mode)
		}
		return out, nil
	}
	spec := measure.Spec{Mode: mode, HashKernel: f.kernel != "", HasInitrd: f.initrd != "", Append: f.append}
	if mode == measure.SEVES {
		spec.VCPUs, spec.VCPUType, spec.VCPUSignature = f.vcpus, f.vcpuType, f.vcpuSig
	}
	var err error
	for _, file := range []struct {
		name string
		most int64
		data *[]byte
	}{{f.firmware, ovmf.MaxSize, &spec.Firmware}, {f.kernel, maxBootFile, &spec.Kernel}, {f.initrd, maxBootFile, &spec.Initrd}} {
		if file.name != "" {
			if *file.data, err = cli.ReadBounded(file.name, file.most); err != nil {
				return nil, err
			}
		}
	}
	if mode == measure.SEVES && f.vmsa0 != "" {
		digest, err := f.withStates(spec)
		if err != nil {
			return nil, err
		}
		return []sev.Digest{digest}, nil
	}
	hosts := []bool{false}
	if mode == measure.SEVES {
		hosts = append(hosts, true) // whichever kernel the host runs
	}
	var out []sev.Digest
	for _, spec.OldHostKernel = range hosts {
		digest, err := measure.Digest(spec)
		if err != nil {
			return nil, fmt.Errorf("measure %s: %w", f.firmware, err)
		}
		out = append(out, sev.Digest(digest))
	}
	return out, nil
}

// withStates computes the digest of a SEV-ES guest whose vCPUs' states (VMSA) are in files, as
// sevctl and virt-qemu-sev-validate take them: firmware | hashes table | the first | the other of each.
func (f verifyFlags) withStates(spec measure.Spec) (sev.Digest, error) {
	spec.Mode, spec.VCPUs = measure.SEV, 0
	if _, err := measure.Digest(spec); err != nil { // refuses firmware that cannot check a kernel
		return sev.Digest{}, fmt.Errorf("measure %s: %w", f.firmware, err)
	}
	h := sha256.New()
	h.Write(spec.Firmware)
	if spec.HashKernel {
		h.Write(measure.KernelHashes(spec.Kernel, spec.Initrd, spec.Append))
	}
	for _, part := range []struct {
		file  string
		times int
	}{{f.vmsa0, 1}, {f.vmsa1, f.vcpus - 1}} {
		if part.times == 0 {
			continue
		}
		state, err := cli.ReadBounded(part.file, stateSize)
		if err != nil {
			return sev.Digest{}, err
		}
		if len(state) != stateSize {
			return sev.Digest{}, fmt.Errorf("read %s: %d bytes, want a vCPU's state of %d", part.file, len(state), stateSize)
		}
		for range part.times {
			h.Write(state)
		}
	}
	return sev.Digest(h.Sum(nil)), nil
}

// stateSize is the size of a VMSA, a page.
const stateSize = 4096
