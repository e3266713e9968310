package main

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sealboot/sealboot/explain"
	"github.com/sealboot/sealboot/explain/snpreport"
	"github.com/sealboot/sealboot/internal/cli"
	"github.com/sealboot/sealboot/measure"
	"github.com/sealboot/sealboot/ovmf"
	"github.com/sealboot/sealboot/sev"
)

// explainFlags are the flags of `sealboot explain`.
type explainFlags struct {
	record, digest, measurement, tik, report string
	policy                                   string
	major, minor, build                      uint8
	firmware                                 []string
	tryFirmware                              string
	svsm                                     []string
	varsSize                                 int64
	varsFile                                 string
	kernel, initrd, append                   string
	vcpuSig                                  uint32
	maxVCPUs                                 int
	asJSON                                   bool
}

func (a *app) explainCommand() *cobra.Command {
	var f explainFlags
	cmd := &cobra.Command{
		Use:   "explain --record FILE {--digest HEX | --measurement BASE64 --tik FILE | --report FILE}",
		Short: "Find out why a launch digest differs",
		Long: `explain finds the launch that a digest stands for: one of the boot record's, or the
nearest one that has this digest. It searches the firmware files given, SEV, SEV-ES and
SEV-SNP, vCPU counts, CPU models, hypervisors, hosts before and since Linux 6.10, guest features,
kernel hashes on and off, initrd or none, and the command line with and without its NUL and
usual additions; with --svsm, SEV-SNP under Coconut-SVSM. A SEV measurement is also tried under
other policies, API versions and builds, and both. Of an SNP report, policy, TCB, host data and the like are shown; its signature is not
checked. Nothing here decides about a secret.

Exit code 0: explained; 3: not explained: then it names the record's launch of that kind of which most is at
hand, what of it is lacking, and what was tried. How near a digest came cannot be known.

With --json: explained, in_record (the launch is one of the record's), fit {mode, firmware,
firmware_sha256, vcpus, vcpu_type, vcpu_signature, vmm, guest_features, old_host_kernel, x87_unset, svsm, svsm_sha256,
vars_size, profile (of measure --profiles), kernel_hashes, command_line, has_initrd, policy, api, digest}, differences [{what,
expected, found}], nearest {launch (as in the boot record), about, lacking}, hints, tried {candidates, recorded, variations (of
policy and API), firmwares, modes, svsms, vars_sizes, vcpu_types, max_vcpus, vmms, host_kernels, guest_features, kernel_hashes}, skipped (files of --try-firmware, and why), report (with
--report: version, measurement, policy, minimum_abi, debug, migration, smt, single_socket, vmpl, guest_svn,
family_id, image_id, host_data, report_data, id_key_digest, reported_tcb, launch_tcb,
platform_firmware, chip_id, cpuid_1_eax).`,
		Example: `  sealboot explain --record record.json --firmware firmware.fd --digest 0ff714cf05c2…
  sealboot explain --record record.json --try-firmware /usr/share/ovmf --report report.bin
  sealboot explain --record record.json --firmware OVMF_CODE.fd --svsm svsm.bin --vars-file OVMF_VARS.fd --report report.bin
  sealboot explain --record record.json --measurement BASE64 --tik tik.bin --policy 0x0b --api-major 1 --api-minor 55 --build-id 21`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.explain(cmd, &f) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.record, "record", "", "boot record with the launches that were expected")
	flags.StringVar(&f.digest, "digest", "", "launch digest in hexadecimal")
	flags.StringVar(&f.measurement, "measurement", "", "SEV measurement in base64, as query-sev-launch-measure gives it")
	flags.StringVar(&f.tik, "tik", "", "file with the session's 16 bytes of TIK (- = stdin)")
	flags.StringVar(&f.policy, "policy", "0x0b", "policy of the session: a number, or names of its bits: nodbg,noks,es,nosend,domain,sev")
	flags.Uint8Var(&f.major, "api-major", 0, "API version of the platform's firmware; without it firmware files are searched less for a measurement")
	flags.Uint8Var(&f.minor, "api-minor", 0, "minor API version")
	flags.Uint8Var(&f.build, "build-id", 0, "build of the platform's firmware")
	flags.StringVar(&f.report, "report", "", "SNP attestation report")
	flags.StringArrayVar(&f.firmware, "firmware", nil, "firmware file to search (may be given again)")
	flags.StringVar(&f.tryFirmware, "try-firmware", "", "folder of firmware files to search, without the folders in it")
	flags.StringArrayVar(&f.svsm, "svsm", nil, "Coconut-SVSM image, to search launches under it (may be given again)")
	flags.Int64Var(&f.varsSize, "vars-size", 0, "size of the firmware's variable store, beside the record's and the usual ones (with --svsm)")
	flags.StringVar(&f.varsFile, "vars-file", "", "variable store, for its size (with --svsm)")
	flags.StringVar(&f.kernel, "kernel", "", "kernel, to search launches with kernel hashes")
	flags.StringVar(&f.initrd, "initrd", "", "initrd (with --kernel)")
	flags.StringVar(&f.append, "append", "", "kernel command line (with --kernel)")
	flags.IntVar(&f.maxVCPUs, "max-vcpus", explain.DefaultVCPUs, "search up to so many vCPUs")
	flags.Uint32Var(&f.vcpuSig, "vcpu-sig", 0, "vCPU signature (CPUID 1 EAX) to search beside the usual ones; a report of version 3 brings its own")
	flags.BoolVar(&f.asJSON, "json", false, "print JSON")
	cmd.MarkFlagRequired("record")
	return cmd
}

// explained is what is printed as JSON.
type explained struct {
	*explain.Answer
	Skipped []string         `json:"skipped,omitempty"`
	Report  *snpreport.Facts `json:"report,omitempty"`
}

func (a *app) explain(cmd *cobra.Command, f *explainFlags) error {
	if err := f.check(cmd.Flags()); err != nil {
		return err
	}
	var out explained
	q := explain.Query{Append: f.append, MaxVCPUs: f.maxVCPUs}
	var err error
	if err := f.target(a, cmd.Flags(), &q, &out); err != nil {
		return err
	}
	if f.vcpuSig != 0 {
		q.Signatures = append(q.Signatures, f.vcpuSig)
	}
	if m := q.Measured; m != nil {
		defer clear(m.TIK[:])
	}
	if q.Record, err = cli.ReadRecord(f.record); err != nil {
		return err
	}
	if err := f.readFirmware(&q); err != nil {
		return err
	}
	if f.tryFirmware != "" {
		if q.Firmware, out.Skipped, err = firmwareFolder(f.tryFirmware, q.Firmware); err != nil {
			return err
		}
	}
	for _, file := range []struct {
		name string
		sum  **[sha256.Size]byte
	}{{f.kernel, &q.Kernel}, {f.initrd, &q.Initrd}} {
		if file.name != "" {
			if *file.sum, err = hashFile(file.name); err != nil {
				return err
			}
		}
	}
	if out.Answer, err = explain.Find(cmd.Context(), q); err != nil {
		return fmt.Errorf("explain: %w", err)
	}
	if f.asJSON {
		e := json.NewEncoder(a.stdout)
		e.SetIndent("", "  ")
		err = e.Encode(out)
	} else {
		err = printExplained(a.stdout, out)
	}
	if err != nil {
		return err
	}
	if !out.Explained {
		return refusef("not explained: none of %d candidates fits", out.Tried.Candidates)
	}
	return nil
}

// readFirmware reads the files that are named one by one.
func (f *explainFlags) readFirmware(q *explain.Query) error {
	for _, files := range []struct {
		names []string
		list  *[]explain.Firmware
	}{{f.firmware, &q.Firmware}, {f.svsm, &q.SVSM}} {
		for _, name := range files.names {
			data, err := readAtOnce(name, ovmf.MaxSize, nil)
			if err != nil {
				return fmt.Errorf("read firmware: %w", err)
			}
			*files.list = append(*files.list, explain.Firmware{Name: name, Data: data})
		}
	}
	if f.varsSize > 0 {
		q.VarsSizes = append(q.VarsSizes, f.varsSize)
	}
	if f.varsFile != "" {
		info, err := os.Stat(f.varsFile)
		if err != nil {
			return err
		}
		q.VarsSizes = append(q.VarsSizes, info.Size())
	}
	return nil
}

// check tells wrong use before any file is read.
func (f *explainFlags) check(flags *pflag.FlagSet) error {
	ways := 0
	for _, way := range []string{f.digest, f.measurement, f.report} {
		if way != "" {
			ways++
		}
	}
	api := 0
	for _, name := range []string{"api-major", "api-minor", "build-id"} {
		if flags.Changed(name) {
			api++
		}
	}
	switch {
	case ways != 1:
		return usagef("give one of --digest, --measurement (with --tik), --report")
	case (f.measurement != "") != (f.tik != ""):
		return usagef("--measurement and --tik go together")
	case f.measurement == "" && (api > 0 || flags.Changed("policy")):
		return usagef("--policy, --api-major, --api-minor and --build-id are for --measurement")
	case api != 0 && api != 3:
		return usagef("--api-major, --api-minor and --build-id go together")
	case f.kernel == "" && (f.initrd != "" || f.append != ""):
		return usagef("--initrd and --append need --kernel")
	case len(f.svsm) == 0 && (flags.Changed("vars-size") || f.varsFile != ""):
		return usagef("--vars-size and --vars-file need --svsm")
	case len(f.svsm) > 0 && len(f.firmware) == 0 && f.tryFirmware == "":
		return usagef("--svsm needs --firmware or --try-firmware: an SVSM runs below a firmware")
	case len(f.svsm) > 0 && f.report == "" && len(f.digest) != 2*measure.SNPSVSM.DigestSize():
		return usagef("--svsm is for digests of SEV-SNP")
	case len(f.svsm) > explain.MaxSVSMs:
		return usagef("%d SVSM images: at most %d", len(f.svsm), explain.MaxSVSMs)
	case flags.Changed("vars-size") && (f.varsSize <= 0 || f.varsSize > ovmf.MaxSize):
		return usagef("--vars-size %d: from 1 to %d", f.varsSize, ovmf.MaxSize)
	case flags.Changed("vcpu-sig") && f.vcpuSig == 0:
		return usagef("--vcpu-sig 0 is no processor's")
	case f.maxVCPUs < 1 || f.maxVCPUs > explain.MaxVCPUs:
		return usagef("--max-vcpus %d: from 1 to %d", f.maxVCPUs, explain.MaxVCPUs)
	case len(f.firmware) > explain.MaxFirmwares:
		return usagef("%d firmware files: at most %d", len(f.firmware), explain.MaxFirmwares)
	case len(f.append) > explain.MaxCommandLine:
		return usagef("--append of %d bytes: at most %d", len(f.append), explain.MaxCommandLine)
	}
	return nil
}

// target reads what is to be explained.
func (f *explainFlags) target(a *app, flags *pflag.FlagSet, q *explain.Query, out *explained) (err error) {
	switch {
	case f.digest != "":
		if q.Digest, err = hex.DecodeString(f.digest); err != nil || len(q.Digest) != 32 && len(q.Digest) != 48 {
			return usagef("--digest takes 64 hexadecimal digits (SEV, SEV-ES) or 96 (SEV-SNP)")
		}
	case f.report != "":
		in, err := os.Open(f.report)
		if err != nil {
			return err
		}
		defer in.Close()
		if out.Report, err = snpreport.Read(in); err != nil {
			return fmt.Errorf("%s: %w", f.report, err)
		}
		q.Digest = out.Report.Measurement
		if out.Report.CPU != 0 {
			q.Signatures = append(q.Signatures, out.Report.CPU)
		}
	default:
		raw, err := base64.StdEncoding.DecodeString(f.measurement)
		if err != nil {
			return usagef("--measurement is not base64")
		}
		m := new(explain.Measured)
		if m.Policy, err = sev.ParsePolicy(f.policy); err != nil {
			return usagef("--policy: %v", err)
		}
		if m.Measurement, err = sev.ParseMeasurement(raw); err != nil {
			return usagef("--measurement: %v", err)
		}
		if flags.Changed("api-major") {
			m.API = &sev.API{Major: f.major, Minor: f.minor, Build: f.build}
		}
		tik, err := a.readKeyFile(f.tik)
		if err != nil {
			return fmt.Errorf("TIK: %w", err)
		}
		defer clear(tik)
		if len(tik) != len(m.TIK) {
			return fmt.Errorf("TIK: %s has %d bytes, not %d", f.tik, len(tik), len(m.TIK))
		}
		copy(m.TIK[:], tik)
		q.Measured = m
	}
	return nil
}

// hashFile gives a kernel's or initrd's SHA-256 without keeping it.
func hashFile(name string) (*[sha256.Size]byte, error) {
	in, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	h := sha256.New()
	n, err := io.Copy(h, io.LimitReader(in, maxBootFile+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if n > maxBootFile {
		return nil, fmt.Errorf("%s has more than %d bytes", name, int64(maxBootFile))
	}
	return (*[sha256.Size]byte)(h.Sum(nil)), nil
}
