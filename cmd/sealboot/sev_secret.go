package main

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sealboot/sealboot/internal/atomicfile"
	"github.com/sealboot/sealboot/internal/cli"
	"github.com/sealboot/sealboot/internal/guid"
	"github.com/sealboot/sealboot/ovmf"
	"github.com/sealboot/sealboot/sev"
)

type secretFlags struct {
	keys            keyFlags
	measurement     string
	entries         []string
	keyFile         string
	firmware        string
	record          string
	header, payload string
	encoding        string
}

// secretAliases are names for GUIDs of secrets; luks-key is virt-qemu-sev-validate's.
var secretAliases = map[string]guid.GUID{"luks-key": sev.DiskPassphrase}

var secretEncodings = []string{"base64", "raw"}

func (a *app) sevSecretCommand() *cobra.Command {
	var f secretFlags
	cmd := &cobra.Command{
		Use:   "secret --tik FILE --tek FILE --measurement M --entry GUID=FILE --firmware FILE --secret-header FILE --secret-payload FILE",
		Short: "Seal secrets for one measured machine",
		Long: `secret builds a secret table and seals it for the machine with this measurement, and for no other
launch: what QMP's sev-inject-launch-secret takes as packet-header and secret. It does not judge the
measurement: call sealboot sev verify-measurement first, and seal nothing when that says no.

Each --entry is GUID=FILE (or GUID:FILE, as sevctl and virt-qemu-sev-validate have it); luks-key is a
name for the disk passphrase's GUID, for which --key-file is short. The table must fit the secret area
of the guest's firmware, which comes from --firmware or from a boot record; --record also adds the
disk's header pin, which sealboot's own guests need.

Both files are 0600, in base64 as QMP and libvirt take them; --encoding raw writes the bytes, as
sevctl and sev-tool do.`,
		Example: `  sealboot sev secret --tik vm_tik.bin --tek vm_tek.bin --measurement BASE64 --key-file out/passphrase --record out/record.json --secret-header header --secret-payload payload
  sealboot sev secret --tk tmp_tk.bin --measurement file --entry luks-key=passphrase --firmware OVMF.amdsev.fd --encoding raw --secret-header header.bin --secret-payload payload.bin`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.sevSecret(f) },
	}
	f.keys.add(cmd)
	flags := cmd.Flags()
	flags.StringVarP(&f.measurement, "measurement", "m", "", "the launch measurement: base64, or a file")
	flags.StringArrayVarP(&f.entries, "entry", "s", nil, "a secret, GUID=FILE; may be repeated")
	flags.StringVar(&f.keyFile, "key-file", "", "file with the disk's passphrase, - for standard input")
	flags.StringVar(&f.firmware, "firmware", "", "the guest's firmware")
	flags.StringVar(&f.record, "record", "", "boot record, for the secret area's size and the header pin")
	flags.StringVar(&f.header, "secret-header", "", "file to write the packet header to")
	flags.StringVar(&f.payload, "secret-payload", "", "file to write the sealed table to")
	flags.StringVar(&f.encoding, "encoding", "base64", "form of the two files: "+strings.Join(secretEncodings, " or "))
	for _, name := range []string{"measurement", "secret-header", "secret-payload"} {
		cmd.MarkFlagRequired(name)
	}
	cmd.RegisterFlagCompletionFunc("encoding", cobra.FixedCompletions(secretEncodings, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (a *app) sevSecret(f secretFlags) error {
	switch {
	case len(f.entries) == 0 && f.keyFile == "":
		return usagef("no secret: give --entry GUID=FILE, or --key-file FILE")
	case (f.firmware == "") == (f.record == ""):
		return usagef("the secret area's size comes from one of --firmware and --record")
	case !slices.Contains(secretEncodings, f.encoding):
		return usagef("unknown encoding %q: %s", f.encoding, strings.Join(secretEncodings, " or "))
	case filepath.Clean(f.header) == filepath.Clean(f.payload):
		return usagef("--secret-header and --secret-payload are the same file")
	}
	// A packet has to do with the MAC alone: sev-tool's calc_measurement_out.bin is no more.
	raw, err := cli.ReadObjectArg("measurement", f.measurement, "a launch measurement", sev.MeasurementSize, len(sev.MAC{}))
	if err != nil {
		return err
	}
	measurement := sev.Measurement{MAC: sev.MAC(raw[:len(sev.MAC{})])}
	area, table, err := f.area()
	if err != nil {
		return err
	}
	defer func() { wipeTable(table) }()
	table, err = a.addEntries(table, f)
	if err != nil {
		return err
	}
	plain, err := table.Encode(int(area.Size))
	if err != nil {
		if errors.Is(err, sev.ErrDuplicateSecret) {
			return usagef("%w", err)
		}
		return err
	}
	defer clear(plain)
	session, err := f.keys.session(0, true) // the policy has no part in a packet
	if err != nil {
		return err
	}
	defer session.Wipe()
	packet, err := session.SealSecret(plain, measurement, rand.Reader)
	if err != nil {
		return err
	}
	header, payload := packet.Header[:], packet.Secret
	if f.encoding == "base64" {
		header = []byte(base64.StdEncoding.EncodeToString(header))
		payload = []byte(base64.StdEncoding.EncodeToString(payload))
	}
	if err := atomicfile.WriteFile(f.header, header, 0o600); err != nil {
		return err
	}
	if err := atomicfile.WriteFile(f.payload, payload, 0o600); err != nil {
		os.Remove(f.header) // it is of no use alone
		return err
	}
	fmt.Fprintf(a.stderr, "sealed %d secrets, %d of %d bytes\n", len(table), len(plain), area.Size)
	return nil
}

// area says where the firmware takes its secrets, and begins the table with what the record has for it.
func (f secretFlags) area() (ovmf.Area, sev.SecretTable, error) {
	if f.record != "" {
		record, err := cli.ReadRecord(f.record)
		if err != nil {
			return ovmf.Area{}, nil, err
		}
		return record.Firmware.SecretArea, sev.SecretTable{{GUID: sev.HeaderPin, Data: slices.Clone(record.Disk.HeaderPin[:])}}, nil
	}
	data, err := cli.ReadBounded(f.firmware, ovmf.MaxSize)
	if err != nil {
		return ovmf.Area{}, nil, err
	}
	image, err := ovmf.Parse(data)
	if err != nil {
		return ovmf.Area{}, nil, fmt.Errorf("read %s: %w", f.firmware, err)
	}
	area, ok := image.SecretArea()
	if !ok {
		return ovmf.Area{}, nil, fmt.Errorf("%s: %w", f.firmware, ovmf.ErrNoSecretArea)
	}
	return area, nil, nil
}

// addEntries reads the secrets' files; on an error too, the table is the caller's to wipe.
func (a *app) addEntries(table sev.SecretTable, f secretFlags) (sev.SecretTable, error) {
	if f.keyFile != "" {
		key, err := a.readKeyFile(f.keyFile)
		if err != nil {
			return table, err
		}
		table = append(table, sev.SecretEntry{GUID: sev.DiskPassphrase, Data: key})
	}
	for _, entry := range f.entries {
		id, file, err := parseSecretEntry(entry)
		if err != nil {
			return table, err
		}
		data, err := cli.ReadBounded(file, sev.MaxSecret)
		if err != nil {
			return table, err
		}
		if len(data) == 0 {
			return table, fmt.Errorf("read secret: %s is empty", file)
		}
		table = append(table, sev.SecretEntry{GUID: id, Data: data})
	}
	return table, nil
}

// parseSecretEntry reads GUID=FILE or GUID:FILE. Neither GUIDs nor their names hold a separator.
func parseSecretEntry(s string) (guid.GUID, string, error) {
	at := strings.IndexAny(s, "=:")
	if at < 0 || s[at+1:] == "" {
		return guid.GUID{}, "", usagef("--entry %q is not of the form GUID=FILE", s)
	}
	if id, ok := secretAliases[s[:at]]; ok {
		return id, s[at+1:], nil
	}
	id, err := guid.Parse(s[:at])
	if err != nil || id.IsZero() {
		return guid.GUID{}, "", usagef("--entry %q: %q is neither a GUID (and not zero) nor luks-key", s, s[:at])
	}
	return id, s[at+1:], nil
}

func wipeTable(table sev.SecretTable) {
	for _, e := range table {
		clear(e.Data)
	}
}
