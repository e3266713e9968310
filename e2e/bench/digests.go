package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

const shortRuns = 25 // of what takes milliseconds

// firmware is the one that deps brought, or the machine's.
func (b *bench) firmware() string {
	path := filepath.Join(b.Deps, "root", "usr/share/ovmf/OVMF.amdsev.fd")
	if _, err := os.Stat(path); err != nil {
		return "/usr/share/ovmf/OVMF.amdsev.fd"
	}
	return path
}

// digests: launch digests of a 4 MiB firmware beside sev-snp-measure, sets of them, and the search that explain makes.
func (b *bench) digests(ctx context.Context) error {
	firmware := b.firmware()
	none := func() error { return nil }
	theirs, err := exec.LookPath("sev-snp-measure")
	if err != nil {
		fmt.Println("sev-snp-measure is not installed: sealboot measure is not compared with it (pip install sev-snp-measure)")
	}
	const cpu = "EPYC-v4"
	for _, launch := range []struct {
		mode  string
		vcpus bool
	}{{"sev", false}, {"seves", true}, {"snp", true}} {
		flags := []string{"--mode", launch.mode, "--ovmf", firmware}
		set := flags
		what := "--mode " + launch.mode
		if launch.vcpus {
			set = append(slices.Clone(flags), "--vcpu-type", cpu, "--vcpus", "1-64", "--profiles", "all")
			flags = append(slices.Clone(flags), "--vcpu-type", cpu, "--vcpus", "4")
			what += " --vcpus 4"
		}
		commands := [][]string{b.sealboot(append([]string{"measure"}, flags...)...), b.sealboot(append([]string{"measure"}, set...)...)}
		if theirs != "" {
			commands = append(commands, append([]string{theirs}, flags...))
		}
		f, err := inTurn(ctx, shortRuns, none, commands...)
		if err != nil {
			return err
		}
		var beside []string
		if theirs != "" {
			beside = append(beside, fmt.Sprintf("(%.1f times as fast as sev-snp-measure; asked for: 10)", f[2].wall.Seconds()/f[0].wall.Seconds()))
		}
		reportShort("sealboot measure "+what, f[0], beside...)
		if launch.vcpus {
			reportShort("sealboot measure --mode "+launch.mode+" --vcpus 1-64 --profiles all", f[1],
				fmt.Sprintf("(%.1f times one digest; asked for: at most 2)", f[1].wall.Seconds()/f[0].wall.Seconds()))
		}
		if theirs != "" {
			reportShort("sev-snp-measure "+what, f[2])
		}
	}
	return b.search(ctx, firmware)
}

// search explains a digest that nothing has, so that every candidate is tried.
func (b *bench) search(ctx context.Context, firmware string) error {
	record, kernel := b.Path("search.json"), b.Path("search.kernel")
	if err := randomFile(kernel, 1<<20); err != nil {
		return err
	}
	if _, err := b.Must(ctx, "measure", "--mode", "snp", "--ovmf", firmware, "--vcpus", "4", "--vcpu-type", "EPYC-v4", "--profiles", "all", "--record", record,
		"--disk-uuid", "0d5a1f4e-55c5-4e0e-9a5e-0f2b7a6a3c11", "--header-pin", strings.Repeat("11", 32)); err != nil {
		return err
	}
	for _, digest := range []struct {
		modes string
		size  int
	}{{"SEV and SEV-ES", 32}, {"SEV-SNP", 48}} {
		args := []string{"explain", "--record", record, "--firmware", firmware, "--digest", strings.Repeat("ab", digest.size), "--kernel", kernel, "--append", "console=ttyS0"}
		out, err := b.Sealboot(ctx, args...)
		if err != nil {
			return err
		}
		var tried int
		_, line, _ := strings.Cut(out.Stdout, "tried")
		if _, err := fmt.Sscanf(line, "%d candidates", &tried); err != nil {
			return fmt.Errorf("read what explain tried: %w\n%s", err, out.Stdout)
		}
		// Exit code 3 is the answer: not explained.
		f, err := inTurn(ctx, runs, func() error { return nil }, append([]string{"sh", "-c", `"$@"; test $? = 3`, "sh"}, b.sealboot(args...)...))
		if err != nil {
			return err
		}
		reportShort(fmt.Sprintf("sealboot explain, %d candidates of %s", tried, digest.modes), f[0], "(asked for: 100000 in under 2 s)")
	}
	return nil
}

func reportShort(what string, f figures, notes ...string) {
	fmt.Printf("%-66s %9.2f ms  peak %6.1f MiB  %s\n", what, f.wall.Seconds()*1e3, float64(f.peak)/(1<<20), strings.Join(notes, " "))
}
