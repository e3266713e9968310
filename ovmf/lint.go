package ovmf

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
)

// Level says what a finding means for the firmware.
type Level string

const (
	Unfit   Level = "unfit"   // the firmware must not carry a secret
	Warning Level = "warning" // it may, once somebody has looked at this
	Note    Level = "note"    // worth knowing
)

// Finding is one thing that Lint found.
type Finding struct {
	Check   string `json:"check"` // which check: a stable name
	Level   Level  `json:"level"`
	Problem string `json:"problem"`
	Why     string `json:"why"`    // it matters
	Advice  string `json:"advice"` // what to do

	// Where something malformed stands; both are absent for other findings.
	Where  string `json:"where,omitempty"`
	Offset *int   `json:"offset,omitempty"` // counted from the start of Where
}

// LintReport is what Lint says. Its JSON form is what `ovmf lint --json` prints; the names of its fields stay.
type LintReport struct {
	Fit        bool      `json:"fit"`
	SHA256     string    `json:"sha256"`
	Size       int       `json:"size"`
	BaseSHA256 string    `json:"base_sha256"` // of everything but GRUB, see BaseDigest; empty if it could not be taken apart
	Build      string    `json:"build"`       // the known build that it is, whatever its GRUB; empty if none
	GRUB       *GRUBLint `json:"grub"`        // null: none that could be read
	Findings   []Finding `json:"findings"`
}

// GRUBLint describes the GRUB in the firmware.
type GRUBLint struct {
	SHA256   string        `json:"sha256"`
	Size     int           `json:"size"`
	Modules  []string      `json:"modules"`  // in the order in which GRUB starts them
	Settings *GRUBSettings `json:"settings"` // null: none that our module would take
}

// LintOptions say what the firmware is to do.
type LintOptions struct {
	SecretTableSize int  // bytes of the secret table that it must take; 0: DefaultSecretTable
	KernelHashes    bool // it is to check a kernel that the host gives, against hashes that are measured
}

// DefaultSecretTable is the size of a table with a passphrase of 64 bytes and a header pin: 20 bytes
// of header, 20 for each entry, padded to 16.
const DefaultSecretTable = 160

// checks say why each check matters and what to do. Their names stay.
var checks = map[string]struct{ why, advice string }{
	"malformed":      {"what readers take in different ways can be measured as one thing and run as another", "get the firmware anew from where it was built"},
	"not-ovmf":       {"without the table at its end nothing says where a secret goes", "use a build of OVMF for AMD SEV (OVMF.amdsev.fd)"},
	"reset-vector":   {"SEV-ES and SEV-SNP cannot start a second vCPU without it", "use a newer build for AMD SEV"},
	"secret-area":    {"the secret has to go where the firmware keeps it from the host, and must fit", "use a build for AMD SEV (OVMF.amdsev.fd), or a smaller secret table"},
	"hashes-area":    {"a kernel that the host gives must be checked against measured hashes, or be refused", "use a build for AMD SEV whose kernel loader checks hashes"},
	"kernel-loader":  {"the boot manager tries the host's kernel before GRUB, and the secret is in memory by then", "accept digests with kernel hashes only for kernels that you know, or use a build without the loader"},
	"snp-metadata":   {"SEV-SNP stops, or the firmware runs on pages that were not measured, where this is not complete", "use a newer build for AMD SEV"},
	"area-overlap":   {"one part of memory would overwrite the other", "get the firmware anew from where it was built"},
	"boot-path":      {"the host chooses what is booted: whatever is there can be reached, and can read the secret", "use a build for AMD SEV, which holds nothing but GRUB"},
	"shell":          {"a shell lets the host read the secret from a prompt", "use a build without the UEFI shell"},
	"boot-manager":   {"only the boot manager of builds for AMD SEV starts nothing but the GRUB in the firmware; others boot what the host attaches", "use a build for AMD SEV (OvmfPkg/AmdSev)"},
	"boot-fallback":  {"when GRUB gives up before its module runs (too little memory is enough), the boot manager goes on to the disks that the host attached, and a file system driver finds a loader on them: it can read the secret", "sealboot ovmf bundle takes them out: bundle again"},
	"boot-variables": {"the firmware boots and loads what its variables name, before or instead of GRUB", "use a build with an empty variable store"},
	"variables":      {"settings in the firmware's variables change what it does", "use a build with an empty variable store, or look at what was stored"},
	"unlisted-data":  {"data between the volumes is measured, but not looked at here", "use a build of your distribution's, or find out what it is"},
	"grub":           {"with no GRUB that takes the secret, the disk is not unlocked", "put one in: sealboot grub build, then sealboot ovmf bundle"},
	"grub-ours":      {"only the module efisecret takes the secret, and turns the machine off when anything fails; another GRUB may ask at the console", "put ours in: sealboot grub build, then sealboot ovmf bundle"},
	"grub-prompt":    {"whoever sits at the console, that is the host, could type commands while the secret is in memory", "build GRUB with sealboot grub build, which leaves this module out"},
	"grub-config":    {"a configuration of GRUB's own runs before the module does, and falls back to a prompt", "build GRUB with sealboot grub build"},
	"grub-settings":  {"the module takes its settings from the memdisk, and stops where they are not what it knows", "build GRUB with sealboot grub build of the same version"},
	"grub-modules":   {"a module that the unlocking does not need is code that nobody looked at for this", "build GRUB with sealboot grub build"},
	"grub-disk":      {"with no disk named, GRUB takes the only LUKS2 disk that the host attached, whichever it is", "name the disk: sealboot grub build --disk-uuid UUID"},
	"grub-append":    {"what stands here can give a prompt in the running system", "leave it out: sealboot grub build --append"},
	"build":          {"who built it can have put anything into it", "use a distribution's build for AMD SEV, or build edk2 yourself and compare base_sha256"},
}

func (r *LintReport) add(check string, level Level, format string, args ...any) {
	c := checks[check]
	r.Findings = append(r.Findings, Finding{Check: check, Level: level, Problem: fmt.Sprintf(format, args...), Why: c.why, Advice: c.advice})
}

// addError adds what could not be read, with its place.
func (r *LintReport) addError(check string, err error) {
	r.add(check, Unfit, "%v", err)
	if e := (*FormatError)(nil); errors.As(err, &e) {
		last := &r.Findings[len(r.Findings)-1]
		last.Where, last.Offset = e.Where, &e.Offset
	}
}

// Lint says whether a firmware image may carry a secret. It takes any bytes: what is malformed is a
// finding with its place. It looks at what stands in the image; it does not judge the code in it,
// for which there are the names of known builds.
func Lint(data []byte, o LintOptions) *LintReport {
	sum := sha256.Sum256(data)
	r := &LintReport{SHA256: hex.EncodeToString(sum[:]), Size: len(data), Findings: []Finding{}}
	if o.SecretTableSize == 0 {
		o.SecretTableSize = DefaultSecretTable
	}
	r.lint(data, o)
	r.Fit = !slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Level == Unfit })
	return r
}

func (r *LintReport) lint(data []byte, o LintOptions) {
	img, err := Parse(data)
	if err != nil {
		if errors.Is(err, ErrNotOVMF) {
			r.addError("not-ovmf", err)
		} else {
			r.addError("malformed", err)
		}
		return
	}
	r.lintAreas(img, o)
	t, err := Unpack(data)
	if err != nil {
		r.addError("malformed", err)
		return
	}
	r.lintTree(t, img, o)
}

// lintTree looks at everything in the volumes.
func (r *LintReport) lintTree(t *Tree, img *Image, o LintOptions) {
	base := t.baseDigest()
	r.BaseSHA256 = hex.EncodeToString(base[:])
	if r.Build = knownBuilds[r.BaseSHA256]; r.Build == "" {
		r.add("build", Warning, "no build that is known: base %s", r.BaseSHA256)
	}
	r.lintBoot(t, img, o)
	r.lintVariables(t)
	r.lintGRUB(t)
}
