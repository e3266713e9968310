package main

import (
	"github.com/spf13/cobra"

	"github.com/sealboot/sealboot/internal/cli"
	"github.com/sealboot/sealboot/sev"
)

// sevCommand groups what people use who verify a launch by hand.
func (a *app) sevCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "sev",
		Short: "Launch an AMD SEV guest by hand: session, measurement, secret, certificates",
		Long: `The owner's side of a SEV or SEV-ES launch, step by step:

  sealboot sev session             makes the two files that QEMU starts the guest with
  sealboot sev verify-measurement  judges the measurement that QEMU then reports
  sealboot sev secret              seals secrets for that one machine

Files are read as the bytes themselves or as base64, as sevctl, AMD's sev-tool, QEMU and libvirt's
virt-qemu-sev-validate write them. Keys come from files alone, and files with keys are made 0600.`,
	}
	cmd.AddCommand(a.sevSessionCommand(), a.sevVerifyCommand(), a.sevSecretCommand(), a.sevCertsCommand())
	return cmd
}

// keyFlags name the files with a session's transport keys.
type keyFlags struct{ tik, tek, tk string }

func (k *keyFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&k.tik, "tik", "", "file with the transport integrity key (sevctl: NAME_tik.bin)")
	f.StringVar(&k.tek, "tek", "", "file with the transport encryption key (sevctl: NAME_tek.bin)")
	f.StringVar(&k.tk, "tk", "", "file with both, TEK then TIK, instead (sev-tool: tmp_tk.bin)")
}

// session reads the keys; the caller wipes the session. Verifying needs the TIK alone.
func (k keyFlags) session(policy sev.Policy, needTEK bool) (*sev.Session, error) {
	switch {
	case k.tk != "" && (k.tik != "" || k.tek != ""):
		return nil, usagef("--tk stands for --tik and --tek: give it, or them")
	case k.tk == "" && k.tik == "":
		return nil, usagef("no integrity key: give --tik FILE, or --tk FILE")
	case k.tk == "" && k.tek == "" && needTEK:
		return nil, usagef("no encryption key: give --tek FILE, or --tk FILE")
	}
	s := &sev.Session{Policy: policy}
	for _, file := range []struct {
		name, object string
		to           [][]byte
	}{
		{k.tk, "file of TEK and TIK", [][]byte{s.TEK[:], s.TIK[:]}},
		{k.tik, "TIK", [][]byte{s.TIK[:]}},
		{k.tek, "TEK", [][]byte{s.TEK[:]}},
	} {
		if file.name == "" {
			continue
		}
		key, err := cli.ReadObject(file.name, file.object, 16*len(file.to))
		if err != nil {
			s.Wipe()
			return nil, err
		}
		for i, to := range file.to {
			copy(to, key[16*i:])
		}
		clear(key)
	}
	return s, nil
}
