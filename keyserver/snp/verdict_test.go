package snp_test

import (
	"errors"
	"testing"

	pb "github.com/google/go-sev-guest/proto/sevsnp"

	"github.com/sealboot/sealboot/keyserver/snp"
	"github.com/sealboot/sealboot/keyserver/snp/fake"
)

// TestJudge spoils a good case, one thing at a time: the report, the policy, or what is expected. Exactly one reason must be given.
func TestJudge(t *testing.T) {
	type spoiled struct {
		report func(*pb.Report)
		policy func(*snp.Policy)
		data   func(*snp.ReportData)
		reason error
	}
	milan := func(spoil func(*snp.Floor)) func(*snp.Policy) {
		return func(p *snp.Policy) {
			f := p.Products[snp.Milan]
			spoil(&f)
			p.Products[snp.Milan] = f
		}
	}
	bit := func(n int) func(*pb.Report) { return func(r *pb.Report) { r.Policy |= 1 << n } }
	cases := map[string]spoiled{
		"replayed, or of another challenge": {data: func(d *snp.ReportData) { d[63]++ }, reason: snp.ErrReportData},
		"my key, another guest's report":    {report: func(r *pb.Report) { r.ReportData = make([]byte, 64) }, reason: snp.ErrReportData},
		"debug guest":                       {report: bit(19), reason: snp.ErrDebug},
		"migration agent":                   {report: bit(18), reason: snp.ErrGuestPolicy},
		"CXL":                               {report: bit(21), reason: snp.ErrGuestPolicy},
		"SMT":                               {policy: func(p *snp.Policy) { p.Guest.AllowSMT = false }, reason: snp.ErrGuestPolicy},
		"many sockets":                      {policy: func(p *snp.Policy) { p.Guest.RequireSingleSocket = true }, reason: snp.ErrGuestPolicy},
		"AES-128":                           {policy: func(p *snp.Policy) { p.Guest.RequireAES256XTS = true }, reason: snp.ErrGuestPolicy},
		"RAPL":                              {policy: func(p *snp.Policy) { p.Guest.RequireRAPLDisabled = true }, reason: snp.ErrGuestPolicy},
		"no ciphertext hiding":              {policy: func(p *snp.Policy) { p.Guest.RequireCipherTextHiding = true }, reason: snp.ErrGuestPolicy},
		"page swapping":                     {policy: func(p *snp.Policy) { p.Guest.RequirePageSwapDisabled = true }, reason: snp.ErrGuestPolicy},
		"older ABI":                         {policy: func(p *snp.Policy) { p.Guest.MinABI = snp.ABI{Minor: 1} }, reason: snp.ErrGuestPolicy},
		"no ECC":                            {report: func(r *pb.Report) { r.PlatformInfo &^= 1 << 2 }, policy: func(p *snp.Policy) { p.Platform.RequireECC = true }, reason: snp.ErrPlatform},
		"no alias check":                    {report: func(r *pb.Report) { r.PlatformInfo &^= 1 << 5 }, policy: func(p *snp.Policy) { p.Platform.RequireAliasCheck = true }, reason: snp.ErrPlatform},
		"trusted devices":                   {report: func(r *pb.Report) { r.PlatformInfo |= 1 << 7 }, reason: snp.ErrPlatform},
		"unknown platform bit":              {report: func(r *pb.Report) { r.PlatformInfo |= 1 << 20 }, reason: snp.ErrPlatform},
		"mitigation missing at launch": {report: func(r *pb.Report) { r.LaunchMitVector = 1 },
			policy: func(p *snp.Policy) { p.Platform.Mitigations = 3; p.Reports = []uint8{5} }, reason: snp.ErrPlatform},
		"mitigation missing now": {report: func(r *pb.Report) { r.CurrentMitVector = 2 },
			policy: func(p *snp.Policy) { p.Platform.Mitigations = 3; p.Reports = []uint8{5} }, reason: snp.ErrPlatform},
		"wrong VMPL":          {report: func(r *pb.Report) { r.Vmpl = 1 }, reason: snp.ErrVMPL},
		"only a lower VMPL":   {policy: func(p *snp.Policy) { p.VMPL = []uint8{1, 2, 3} }, reason: snp.ErrVMPL},
		"report version":      {policy: func(p *snp.Policy) { p.Reports = []uint8{2, 3} }, reason: snp.ErrNotAllowed},
		"product":             {policy: func(p *snp.Policy) { delete(p.Products, snp.Milan) }, reason: snp.ErrNotAllowed},
		"VLEK":                {report: func(r *pb.Report) { r.SignerInfo = fake.VLEK }, policy: func(p *snp.Policy) { p.Signers = []snp.Signer{snp.VCEK} }, reason: snp.ErrNotAllowed},
		"VCEK":                {policy: func(p *snp.Policy) { p.Signers = []snp.Signer{snp.VLEK} }, reason: snp.ErrNotAllowed},
		"bootloader":          {policy: milan(func(f *snp.Floor) { f.TCB.Bootloader++ }), reason: snp.ErrTCB},
		"tee":                 {policy: milan(func(f *snp.Floor) { f.TCB.TEE++ }), reason: snp.ErrTCB},
		"snp":                 {policy: milan(func(f *snp.Floor) { f.TCB.SNP++ }), reason: snp.ErrTCB},
		"microcode":           {policy: milan(func(f *snp.Floor) { f.TCB.Microcode++ }), reason: snp.ErrTCB},
		"launch TCB":          {report: func(r *pb.Report) { r.LaunchTcb -= 1 << 48 }, reason: snp.ErrTCB},
		"committed TCB":       {report: func(r *pb.Report) { r.CommittedTcb -= 1 << 56 }, reason: snp.ErrTCB},
		"current TCB":         {report: func(r *pb.Report) { r.CurrentTcb-- }, reason: snp.ErrTCB},
		"current behind":      {report: func(r *pb.Report) { r.CommittedTcb++ }, reason: snp.ErrTCB},
		"older build":         {report: func(r *pb.Report) { r.CurrentBuild, r.CommittedBuild = 38, 38 }, reason: snp.ErrFirmware},
		"older version":       {report: func(r *pb.Report) { r.CurrentMinor, r.CommittedMinor, r.CurrentBuild = 54, 54, 255 }, reason: snp.ErrFirmware},
		"older committed":     {report: func(r *pb.Report) { r.CommittedBuild = 1 }, reason: snp.ErrFirmware},
		"firmware behind":     {report: func(r *pb.Report) { r.CommittedBuild = 40 }, reason: snp.ErrFirmware},
		"old guest":           {policy: func(p *snp.Policy) { p.MinGuestSVN = 1 }, reason: snp.ErrSVN},
		"no ID key":           {policy: func(p *snp.Policy) { p.IDKeys = snp.Only(snp.KeyDigest{1}) }, reason: snp.ErrKey},
		"another ID key":      {report: func(r *pb.Report) { r.IdKeyDigest[0] = 2 }, policy: func(p *snp.Policy) { p.IDKeys = snp.Only(snp.KeyDigest{1}) }, reason: snp.ErrKey},
		"another author key":  {report: func(r *pb.Report) { r.AuthorKeyDigest[0], r.SignerInfo = 2, 1 }, policy: func(p *snp.Policy) { p.AuthorKeys = snp.Only(snp.KeyDigest{1}) }, reason: snp.ErrKey},
		"author key not used": {report: func(r *pb.Report) { r.AuthorKeyDigest[0] = 1 }, policy: func(p *snp.Policy) { p.AuthorKeys = snp.Only(snp.KeyDigest{1}) }, reason: snp.ErrKey},
		"unlisted chip":       {policy: func(p *snp.Policy) { p.Chips = snp.Only(snp.ChipID{1}) }, reason: snp.ErrChip},
		"another family":      {policy: func(p *snp.Policy) { p.FamilyID = snp.Only(snp.GuestID{1}) }, reason: snp.ErrLaunchData},
		"another image":       {policy: func(p *snp.Policy) { p.ImageID = snp.Only(snp.GuestID{1}) }, reason: snp.ErrLaunchData},
		"other host data":     {policy: func(p *snp.Policy) { p.HostData = snp.Only(snp.HostData{1}) }, reason: snp.ErrLaunchData},
		"no list, but needed": {policy: func(p *snp.Policy) { p.Revocation = snp.DefaultPolicy().Revocation }, reason: snp.ErrRevocationAge},
		"policy not valid":    {policy: func(p *snp.Policy) { p.Platform.Mitigations = 1 }, reason: snp.ErrPolicy},
		"values that are met": {
			report: func(r *pb.Report) {
				r.Policy |= 1<<20 | 1<<22 | 1<<23 | 1<<24 | 1<<25 | 1<<8
				r.GuestSvn, r.Vmpl, r.SignerInfo = 3, 2, 1
				r.IdKeyDigest[0], r.AuthorKeyDigest[0], r.FamilyId[0], r.ImageId[0], r.HostData[0] = 1, 2, 3, 4, 5
			},
			policy: func(p *snp.Policy) {
				p.Guest = snp.GuestPolicy{MinABI: snp.ABI{Major: 1}, AllowSMT: true, RequireSingleSocket: true, RequireAES256XTS: true,
					RequireRAPLDisabled: true, RequireCipherTextHiding: true, RequirePageSwapDisabled: true}
				p.Platform = snp.Platform{RequireECC: true, RequireAliasCheck: true, Mitigations: 3}
				p.Reports, p.MinGuestSVN, p.VMPL, p.Signers = []uint8{5}, 3, []uint8{2}, []snp.Signer{snp.VCEK}
				p.IDKeys, p.AuthorKeys = snp.Only(snp.KeyDigest{9}, snp.KeyDigest{1}), snp.Only(snp.KeyDigest{2})
				p.FamilyID, p.ImageID, p.HostData = snp.Only(snp.GuestID{3}), snp.Only(snp.GuestID{4}), snp.Only(snp.HostData{5})
				p.Chips = snp.Only(amds()[snp.Milan].Chip)
			}},
	}
	a := amds()[snp.Milan]
	v := verifier(t, a.Roots(), nil)
	for name, c := range cases {
		r, p, d := good(a, 5), policy(), goodData
		if c.report != nil {
			c.report(r)
		}
		if c.policy != nil {
			c.policy(&p)
		}
		if c.data != nil {
			c.data(&d)
		}
		at, err := v.Verify(t.Context(), snp.Evidence{Report: a.Sign(r), Certificates: a.Table()}, now)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		verdict := at.Judge(p, d, now)
		if c.reason == nil {
			if err := verdict.Err(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if len(verdict.Complaints) == 0 {
			t.Errorf("%s: no complaint", name)
		}
		for _, complaint := range verdict.Complaints {
			if typed := (*snp.Complaint)(nil); !errors.As(complaint, &typed) || typed.Reason != c.reason || !errors.Is(complaint, c.reason) {
				t.Errorf("%s: %v", name, complaint)
			}
		}
	}
}

// TestJudgeTurin holds each part of Turin's TCB, which has another order, against its floor.
func TestJudgeTurin(t *testing.T) {
	a := amds()[snp.Turin]
	at, err := verifier(t, a.Roots(), nil).Verify(t.Context(), snp.Evidence{Report: a.Sign(good(a, 5)), Certificates: a.Table()}, now)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		p := policy()
		f := p.Products[snp.Turin]
		if err := at.Judge(p, goodData, now).Err(); err != nil {
			t.Fatal(err)
		}
		*[]*uint8{&f.TCB.FMC, &f.TCB.Bootloader, &f.TCB.TEE, &f.TCB.SNP, &f.TCB.Microcode}[i]++
		p.Products[snp.Turin] = f
		if verdict := at.Judge(p, goodData, now); len(verdict.Complaints) != 4 || !errors.Is(verdict.Err(), snp.ErrTCB) {
			t.Errorf("part %d: %v", i, verdict.Err())
		}
	}
}

// TestJudgeAll: the zero policy and a guest that is wrong in every way; all is said at once.
func TestJudgeAll(t *testing.T) {
	a := amds()[snp.Genoa]
	r := a.Report(2, snp.Digest{}, snp.ReportData{1})
	r.Policy |= 1<<19 | 1<<18
	at, err := verifier(t, a.Roots(), nil).Verify(t.Context(), snp.Evidence{Report: a.Sign(r), Certificates: a.Table()}, now)
	if err != nil {
		t.Fatal(err)
	}
	err = at.Judge(snp.Policy{}, snp.ReportData{}, now).Err()
	for _, reason := range []error{snp.ErrPolicy, snp.ErrReportData, snp.ErrDebug, snp.ErrGuestPolicy, snp.ErrVMPL,
		snp.ErrNotAllowed, snp.ErrKey, snp.ErrChip, snp.ErrLaunchData} {
		if !errors.Is(err, reason) {
			t.Errorf("no complaint that %v: %v", reason, err)
		}
	}
}
