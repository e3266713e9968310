package main

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"github.com/sealboot/sealboot/internal/atomicfile"
	"github.com/sealboot/sealboot/internal/cli"
	"github.com/sealboot/sealboot/measure"
)

func (f *measureFlags) run(a *app, flags *pflag.FlagSet) error {
	if f.list {
		return f.listProfiles(a)
	}
	var vcpus []int
	var profiles []measure.Profile
	var err error
	if f.vcpus != "" {
		if vcpus, err = cli.ParseVCPUs(f.vcpus); err != nil {
			return err
		}
	}
	if f.profiles != "" {
		if profiles, err = measure.FindProfiles(f.profiles); err != nil {
			return usagef("--profiles: %v", err)
		}
	}
	many := len(vcpus) > 1 || profiles != nil
	svsm := measure.Mode(f.mode) == measure.SNPSVSM && profiles == nil && !f.oldHost
	switch {
	case many && (f.dumpVMSA || f.ovmfHash != ""):
		return usagef("--dump-vmsa and --snp-ovmf-hash take one number of vCPUs and no --profiles")
	case svsm && (many || f.json || f.record != ""):
		return usagef("mode snp:svsm needs --profiles for sets, --json and --record")
	}
	spec, err := f.spec(flags, !many)
	if err != nil {
		return err
	}
	var set []measure.LaunchDigest
	if many {
		set, err = measure.DigestSet(spec, vcpus, profiles)
	} else {
		if len(vcpus) == 1 {
			spec.VCPUs = vcpus[0]
		}
		set, err = f.one(a, spec)
	}
	if err != nil {
		return fmt.Errorf("measure %s: %w", f.ovmf, err)
	}
	if f.record != "" {
		if err := f.writeRecord(spec, set); err != nil {
			return err
		}
	}
	return f.print(a, set, many)
}

// one measures one launch, and writes what its vCPUs start from if asked to.
func (f *measureFlags) one(a *app, spec measure.Spec) ([]measure.LaunchDigest, error) {
	if spec.Mode == measure.SNPSVSM && !spec.OldHostKernel {
		spec.X87Unset = true
		fmt.Fprintln(a.stderr, "note: this digest is as sev-snp-measure computes it; hosts leave x87_fcw otherwise: use --profiles (see --list-profiles)")
	}
	digest, err := measure.Digest(spec)
	if err != nil {
		return nil, err
	}
	if f.dumpVMSA {
		page, err := measure.VMSAs(spec)
		if err != nil {
			return nil, err
		}
		for i := range spec.VCPUs {
			if err := atomicfile.WriteFile(fmt.Sprintf("vmsa%d.bin", i), page(i), 0o644); err != nil {
				return nil, err
			}
		}
	}
	return []measure.LaunchDigest{{Launch: spec.Launch(), Digest: digest}}, nil
}

func (f *measureFlags) print(a *app, set []measure.LaunchDigest, many bool) error {
	if f.json {
		e := json.NewEncoder(a.stdout)
		e.SetIndent("", "  ")
		return e.Encode(set)
	}
	var out strings.Builder
	for _, d := range set {
		text := hex.EncodeToString(d.Digest)
		if f.format == "base64" {
			text = base64.StdEncoding.EncodeToString(d.Digest)
		}
		switch {
		case many:
			fmt.Fprintf(&out, "%s\t%d\t%s\n", text, d.VCPUs, d.Profile)
		case f.verbose:
			fmt.Fprintf(&out, "Calculated %s guest measurement: %s\n", d.Mode, text)
		default:
			fmt.Fprintln(&out, text)
		}
	}
	_, err := fmt.Fprint(a.stdout, out.String())
	return err
}

func (f *measureFlags) listProfiles(a *app) error {
	if f.json {
		e := json.NewEncoder(a.stdout)
		e.SetIndent("", "  ")
		return e.Encode(measure.Profiles())
	}
	for _, p := range measure.Profiles() {
		if _, err := fmt.Fprintf(a.stdout, "%-12s %s\n", p.Name, p.Description); err != nil {
			return err
		}
	}
	return nil
}

// checkSVSM takes the size of the variable store from the one of two ways to give it.
func (f *measureFlags) checkSVSM(s *measure.Spec, flags *pflag.FlagSet) error {
	bySize, byFile := flags.Changed("vars-size"), flags.Changed("vars-file")
	switch {
	case s.Mode != measure.SNPSVSM && (f.svsm != "" || bySize || byFile):
		return usagef("--svsm, --vars-size and --vars-file are for mode %s", measure.SNPSVSM)
	case s.Mode != measure.SNPSVSM:
		return nil
	case f.svsm == "":
		return usagef("mode %s needs --svsm", s.Mode)
	case bySize == byFile:
		return usagef("mode %s needs one of --vars-size and --vars-file", s.Mode)
	case f.kernel != "":
		return usagef("mode %s measures no kernel", s.Mode)
	}
	s.VarsSize = f.varsSize
	if byFile {
		info, err := os.Stat(f.varsFile)
		if err != nil {
			return err
		}
		s.VarsSize = info.Size()
	}
	return nil
}

// writeRecord adds the digests to the boot record, or makes one.
func (f *measureFlags) writeRecord(spec measure.Spec, set []measure.LaunchDigest) error {
	if spec.Mode == measure.SNPOVMFHash || spec.OVMFHash != nil {
		return usagef("--record takes whole launches only")
	}
	record, err := cli.ReadRecord(f.record)
	switch {
	case errors.Is(err, os.ErrNotExist):
		if f.diskUUID == "" || f.headerPin == "" {
			return usagef("%s is not there: a new boot record needs --disk-uuid and --header-pin", f.record)
		}
		disk := measure.Disk{UUID: f.diskUUID}
		if err := disk.HeaderPin.UnmarshalText([]byte(f.headerPin)); err != nil {
			return usagef("--header-pin: %v", err)
		}
		if record, err = measure.NewRecordOf(spec.Firmware, set, disk, map[string]string{"sealboot": cli.Version()}); err != nil {
			return err
		}
	case err != nil:
		return err
	case f.diskUUID != "" || f.headerPin != "":
		return usagef("%s is there: --disk-uuid and --header-pin are for a new boot record", f.record)
	default:
		if err := record.AddSet(spec.Firmware, set); err != nil {
			return fmt.Errorf("%s: %w", f.record, err)
		}
	}
	text, err := record.Encode()
	if err != nil {
		return err
	}
	return atomicfile.WriteFile(f.record, text, 0o644)
}
