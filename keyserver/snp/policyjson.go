package snp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The JSON form of a Policy. Every field must be there, once and in this spelling, and no other.
type (
	policyJSON struct {
		Guest       guestJSON           `json:"guest"`
		Platform    platformJSON        `json:"platform"`
		VMPL        numbers             `json:"vmpl"`
		Products    map[Product]tcbJSON `json:"products"`
		Reports     numbers             `json:"reports"`
		Signers     []Signer            `json:"signers"`
		Revocation  revocationJSON      `json:"revocation"`
		MinGuestSVN uint32              `json:"min_guest_svn"`
		IDKeys      Allowed[KeyDigest]  `json:"id_keys"`
		AuthorKeys  Allowed[KeyDigest]  `json:"author_keys"`
		Chips       Allowed[ChipID]     `json:"chips"`
		FamilyID    Allowed[GuestID]    `json:"family_id"`
		ImageID     Allowed[GuestID]    `json:"image_id"`
		HostData    Allowed[HostData]   `json:"host_data"`
	}
	guestJSON struct {
		MinABI                  string `json:"min_abi"`
		AllowSMT                bool   `json:"allow_smt"`
		AllowMigrationAgent     bool   `json:"allow_migration_agent"`
		AllowCXL                bool   `json:"allow_cxl"`
		RequireSingleSocket     bool   `json:"require_single_socket"`
		RequireAES256XTS        bool   `json:"require_aes_256_xts"`
		RequireRAPLDisabled     bool   `json:"require_rapl_disabled"`
		RequireCipherTextHiding bool   `json:"require_ciphertext_hiding"`
		RequirePageSwapDisabled bool   `json:"require_page_swap_disabled"`
	}
	platformJSON struct {
		RequireECC        bool   `json:"require_ecc"`
		RequireAliasCheck bool   `json:"require_alias_check"`
		AllowTIO          bool   `json:"allow_tio"`
		Mitigations       string `json:"mitigations"` // 0x and hexadecimal digits
	}
	tcbJSON struct {
		Firmware   string `json:"firmware"`
		FMC        uint8  `json:"fmc"`
		Bootloader uint8  `json:"bootloader"`
		TEE        uint8  `json:"tee"`
		SNP        uint8  `json:"snp"`
		Microcode  uint8  `json:"microcode"`
	}
	revocationJSON struct {
		Required bool   `json:"required"`
		MaxAge   string `json:"max_age"`
	}
)

// numbers is a []uint8 that encoding/json does not take for base64.
type numbers []uint8

func (n numbers) MarshalJSON() ([]byte, error) {
	wide := make([]uint16, len(n))
	for i, v := range n {
		wide[i] = uint16(v)
	}
	return json.Marshal(wide)
}

func (n *numbers) UnmarshalJSON(b []byte) error {
	var wide []uint16
	if err := json.Unmarshal(b, &wide); err != nil || wide == nil {
		return errors.New("want a list of numbers")
	}
	*n = make([]uint8, len(wide))
	for i, v := range wide {
		if v > 255 {
			return fmt.Errorf("number %d is over 255", v)
		}
		(*n)[i] = uint8(v)
	}
	return nil
}

// MarshalJSON gives the JSON form, the same bytes for the same policy.
func (p Policy) MarshalJSON() ([]byte, error) { return json.Marshal(p.form()) }

func (p Policy) form() policyJSON {
	g, h := p.Guest, p.Platform
	floors := make(map[Product]tcbJSON, len(p.Products))
	for name, f := range p.Products {
		floors[name] = tcbJSON{f.Firmware.String(), f.TCB.FMC, f.TCB.Bootloader, f.TCB.TEE, f.TCB.SNP, f.TCB.Microcode}
	}
	return policyJSON{
		Guest: guestJSON{g.MinABI.String(), g.AllowSMT, g.AllowMigrationAgent, g.AllowCXL, g.RequireSingleSocket,
			g.RequireAES256XTS, g.RequireRAPLDisabled, g.RequireCipherTextHiding, g.RequirePageSwapDisabled},
		Platform:   platformJSON{h.RequireECC, h.RequireAliasCheck, h.AllowTIO, fmt.Sprintf("%#x", h.Mitigations)},
		VMPL:       numbers(p.VMPL),
		Products:   floors,
		Reports:    numbers(p.Reports),
		Signers:    append([]Signer{}, p.Signers...),
		Revocation: revocationJSON{p.Revocation.Required, p.Revocation.MaxAge.String()}, MinGuestSVN: p.MinGuestSVN,
		IDKeys: p.IDKeys, AuthorKeys: p.AuthorKeys, Chips: p.Chips, FamilyID: p.FamilyID, ImageID: p.ImageID, HostData: p.HostData,
	}
}

// UnmarshalJSON takes the JSON form of a policy that is valid. Nothing may be missing or left over.
func (p *Policy) UnmarshalJSON(b []byte) error {
	form := policyJSON{Products: map[Product]tcbJSON{}, Signers: []Signer{}}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&form); err != nil {
		return fmt.Errorf("read SNP policy: %w", err)
	}
	have, err := names(b)
	if err != nil {
		return fmt.Errorf("read SNP policy: %w", err)
	}
	text, err := json.Marshal(form)
	if err != nil {
		return fmt.Errorf("read SNP policy: %w", err)
	}
	want, err := names(text)
	if err != nil {
		return fmt.Errorf("read SNP policy: %w", err)
	}
	if missing := without(want, have); len(missing) > 0 {
		return fmt.Errorf("read SNP policy: %w: %s", ErrNotSaid, strings.Join(missing, ", "))
	}
	if unknown := without(have, want); len(unknown) > 0 {
		return fmt.Errorf("read SNP policy: unknown: %s", clip(strings.Join(unknown, ", ")))
	}
	q, err := form.policy()
	if err != nil {
		return fmt.Errorf("read SNP policy: %w", err)
	}
	if err := q.Validate(); err != nil {
		return fmt.Errorf("read SNP policy: %w", err)
	}
	*p = q
	return nil
}

// ErrNotSaid says that a policy's JSON form leaves a field out.
var ErrNotSaid = errors.New(`policy does not say everything (say "any", false or 0 where nothing is asked)`)

func (j policyJSON) policy() (Policy, error) {
	g, h := j.Guest, j.Platform
	abi, err := ParseABI(g.MinABI)
	if err != nil {
		return Policy{}, err
	}
	mitigations, err := strconv.ParseUint(h.Mitigations, 0, 64)
	if err != nil || fmt.Sprintf("%#x", mitigations) != h.Mitigations {
		return Policy{}, fmt.Errorf("mitigations %q: want 0x and hexadecimal digits", clip(h.Mitigations))
	}
	age, err := time.ParseDuration(j.Revocation.MaxAge)
	if err != nil {
		return Policy{}, fmt.Errorf("max_age %q: want a time like 720h", clip(j.Revocation.MaxAge))
	}
	floors := make(map[Product]Floor, len(j.Products))
	for name, f := range j.Products {
		firmware, err := ParseFirmware(f.Firmware)
		if err != nil {
			return Policy{}, err
		}
		floors[name] = Floor{TCB{f.FMC, f.Bootloader, f.TEE, f.SNP, f.Microcode}, firmware}
	}
	return Policy{
		Guest: GuestPolicy{abi, g.AllowSMT, g.AllowMigrationAgent, g.AllowCXL, g.RequireSingleSocket,
			g.RequireAES256XTS, g.RequireRAPLDisabled, g.RequireCipherTextHiding, g.RequirePageSwapDisabled},
		Platform:   Platform{h.RequireECC, h.RequireAliasCheck, h.AllowTIO, mitigations},
		VMPL:       j.VMPL,
		Products:   floors,
		Reports:    j.Reports,
		Signers:    j.Signers,
		Revocation: Revocation{j.Revocation.Required, age}, MinGuestSVN: j.MinGuestSVN,
		IDKeys: j.IDKeys, AuthorKeys: j.AuthorKeys, Chips: j.Chips, FamilyID: j.FamilyID, ImageID: j.ImageID, HostData: j.HostData,
	}, nil
}

// names lists the paths of a JSON value's fields. encoding/json takes the last of two fields with one name, null for nothing said, and
// names in any capitals: the first two are errors here, the third is a path that is unknown.
func names(b []byte) (map[string]bool, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	list := map[string]bool{}
	if err := walk(d, "", 0, list); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the policy")
	}
	return list, nil
}

func walk(d *json.Decoder, path string, depth int, list map[string]bool) error {
	t, err := d.Token()
	if err != nil {
		return err
	}
	switch t {
	case nil:
		return fmt.Errorf("%s is null", clip(path))
	case json.Delim('{'), json.Delim('['):
		if depth == 4 {
			return errors.New("nested too deep")
		}
		for d.More() {
			inner := path
			if t == json.Delim('{') {
				name, err := d.Token()
				if err != nil {
					return err
				}
				inner = strings.TrimPrefix(fmt.Sprintf("%s.%v", path, name), ".")
				if list[inner] {
					return fmt.Errorf("%s is there twice", clip(inner))
				}
				list[inner] = true
			}
			if err := walk(d, inner, depth+1, list); err != nil {
				return err
			}
		}
		_, err = d.Token()
	}
	return err
}

// without lists what is in a and not in b.
func without(a, b map[string]bool) []string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(a)) {
		if !b[name] {
			list = append(list, name)
		}
	}
	return list
}
