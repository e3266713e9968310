package ovmf

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sealboot/sealboot/internal/testtool"
)

// ourELF makes a module as GRUB's are, of nothing but its name.
func ourELF(name string) []byte {
	b := make([]byte, 64)
	copy(b, "\x7fELF\x02\x01\x01")
	names := "\x00.modname\x00.shstrtab\x00"
	nameAt := uint64(len(b))
	b = append(b, name+"\x00"...)
	namesAt := uint64(len(b))
	b = append(b, names...)
	b = append(b, make([]byte, align(len(b), 8)-len(b))...)
	binary.LittleEndian.PutUint64(b[40:], uint64(len(b)))
	binary.LittleEndian.PutUint16(b[58:], 64)
	binary.LittleEndian.PutUint16(b[60:], 3)
	binary.LittleEndian.PutUint16(b[62:], 2)
	section := func(name uint32, at, size uint64) {
		var s [64]byte
		binary.LittleEndian.PutUint32(s[:], name)
		binary.LittleEndian.PutUint64(s[24:], at)
		binary.LittleEndian.PutUint64(s[32:], size)
		b = append(b, s[:]...)
	}
	section(0, 0, 0)
	section(1, nameAt, uint64(len(name)+1))
	section(10, namesAt, uint64(len(names)))
	return b
}

// object is one that grub-mkimage embeds.
type object struct {
	kind uint32
	data []byte
}

// grubOf makes an EFI application that holds these objects as GRUB does.
func grubOf(objects ...object) []byte {
	mods := make([]byte, grubModulesHeader)
	for _, o := range objects {
		data := append(bytes.Clone(o.data), make([]byte, align(len(o.data), 8)-len(o.data))...)
		mods = binary.LittleEndian.AppendUint32(mods, o.kind)
		mods = binary.LittleEndian.AppendUint32(mods, uint32(grubObjectHeader+len(data)))
		mods = append(mods, data...)
	}
	binary.LittleEndian.PutUint32(mods, grubModulesMagic)
	binary.LittleEndian.PutUint64(mods[8:], grubModulesHeader)
	binary.LittleEndian.PutUint64(mods[16:], uint64(len(mods)))
	b := efiApplication(0x200+len(mods), 0)
	section := b[0x40+24+112:]
	copy(section, grubSection)
	copy(b[0x200:], mods)
	return b
}

const settingsText = "# ours\nversion='1'\ndisk_uuid='0d5a1f4e-55c5-4e0e-9a5e-0f2b7a6a3c11'\nappend='console=ttyS0'\nserial='0'\n"

func memdiskOf(name, text string) []byte {
	head := make([]byte, 512)
	copy(head, name)
	copy(head[100:], "0000444\x00")
	copy(head[124:], []byte(octal(len(text))))
	copy(head[136:], octal(0))
	copy(head[148:], "        ")
	head[156] = '0'
	copy(head[257:], "ustar\x0000")
	sum := 0
	for _, c := range head {
		sum += int(c)
	}
	copy(head[148:], octal(sum)[5:]+"\x00 ")
	body := append(head, text...)
	return append(body, make([]byte, align(len(body), 512)-len(body)+1024)...)
}

func octal(n int) string {
	const digits = "01234567"
	b := bytes.Repeat([]byte{'0'}, 11)
	for i := 10; n > 0; i, n = i-1, n/8 {
		b[i] = digits[n%8]
	}
	return string(b)
}

func goodObjects() []object {
	return []object{
		{grubELF, ourELF("procfs")}, {grubELF, ourELF("luks2")}, {grubELF, ourELF(grubModule)},
		{grubMemdisk, memdiskOf("grub.cfg", settingsText)}, {grubPrefix, []byte("(memdisk)/none\x00")},
	}
}

// levels gives the findings as "check level", without what a good firmware has too.
func levels(r *LintReport) []string {
	var all []string
	for _, f := range r.Findings {
		if f.Check == "kernel-loader" && f.Level == Note {
			continue
		}
		all = append(all, f.Check+" "+string(f.Level))
	}
	return all
}

// sparing leaves out that the build is not known: it depends on the distribution of the test's machine.
func sparing(r *LintReport) []string {
	return slices.DeleteFunc(levels(r), func(s string) bool { return s == "build warning" })
}

func goodFirmware(t *testing.T) []byte {
	firmware := mustBundle(t, amdSev(t), grubOf(goodObjects()...))
	r := Lint(firmware, LintOptions{})
	if !r.Fit || len(sparing(r)) != 0 || r.GRUB == nil || r.GRUB.Settings == nil {
		t.Fatalf("the good firmware: %+v", r)
	}
	if s := r.GRUB.Settings; s.Append != "console=ttyS0" || s.DiskUUID != "0d5a1f4e-55c5-4e0e-9a5e-0f2b7a6a3c11" || s.Serial {
		t.Fatalf("settings %+v", s)
	}
	return firmware
}

// TestLintSpoiled spoils one thing of a good firmware each, and wants that finding.
func TestLintSpoiled(t *testing.T) {
	firmware := goodFirmware(t)
	// of lints bytes, and of a changed tree what Lint would find in it: packing it takes its time.
	of := func(b []byte) func(*testing.T) *LintReport {
		return func(*testing.T) *LintReport { return Lint(b, LintOptions{}) }
	}
	table := func(change func(entry func(id [16]byte) []byte, metadata []byte)) func(*testing.T) *LintReport {
		return func(t *testing.T) *LintReport {
			b := bytes.Clone(firmware)
			img, err := Parse(b)
			if err != nil {
				t.Fatal(err)
			}
			entry := func(id [16]byte) []byte {
				data, ok := img.find(id)
				if !ok {
					t.Fatalf("no entry %x", id)
				}
				return data
			}
			at := len(b) - int(binary.LittleEndian.Uint32(entry(MetadataGUID)))
			change(entry, b[at+metadataHeader:])
			return Lint(b, LintOptions{})
		}
	}
	img, err := Parse(firmware)
	if err != nil {
		t.Fatal(err)
	}
	tree := func(change func(*Tree)) func(*testing.T) *LintReport {
		return func(t *testing.T) *LintReport {
			tree, r := mustUnpack(t, firmware), &LintReport{}
			change(tree)
			r.lintTree(tree, img, LintOptions{})
			r.Fit = !slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Level == Unfit })
			return r
		}
	}
	application := func(efi []byte) func(*testing.T) *LintReport {
		return tree(func(tree *Tree) {
			v, old := tree.grub()
			file, err := old.withApplication(efi)
			if err != nil {
				t.Fatal(err)
			}
			if err := v.replaceLast(old, file); err != nil {
				t.Fatal(err)
			}
		})
	}
	grub := func(change func([]object) []object) func(*testing.T) *LintReport {
		return application(grubOf(change(goodObjects())...))
	}
	settings := func(old, new string) func(*testing.T) *LintReport {
		return grub(func(o []object) []object {
			text := strings.Replace(settingsText, old, new, 1)
			if text == settingsText {
				t.Fatalf("no %q in the settings", old)
			}
			o[3].data = memdiskOf("grub.cfg", text)
			return o
		})
	}
	put := binary.LittleEndian.PutUint32
	variable := func(name string) func(*testing.T) *LintReport {
		b := bytes.Clone(firmware)
		setVariable(b[0x48+storeHeader:], name)
		return of(b)
	}
	patched := func(at int, c byte) []byte {
		b := bytes.Clone(firmware)
		b[at] = c
		return b
	}
	drop := func(n int) func([]byte) { // the section's type becomes that of another
		return func(metadata []byte) { put(metadata[n*metadataSection+8:], uint32(SecMem)) }
	}
	tests := map[string]struct {
		lint func(*testing.T) *LintReport
		want string
	}{
		"cut":                    {of(firmware[:len(firmware)-1]), "not-ovmf unfit"},
		"short":                  {of(firmware[len(firmware)-70:]), "malformed unfit"},
		"empty":                  {of(nil), "not-ovmf unfit"},
		"no secret area":         {table(func(e func([16]byte) []byte, _ []byte) { clear(e(SecretAreaGUID)) }), "secret-area unfit"},
		"small secret area":      {table(func(e func([16]byte) []byte, _ []byte) { put(e(SecretAreaGUID)[4:], DefaultSecretTable-1) }), "secret-area unfit"},
		"odd secret area":        {table(func(e func([16]byte) []byte, _ []byte) { e(SecretAreaGUID)[0]++ }), "secret-area unfit"},
		"secret over hashes":     {table(func(e func([16]byte) []byte, _ []byte) { put(e(SecretAreaGUID)[4:], 3072+16) }), "area-overlap unfit"},
		"secret over stack":      {table(func(e func([16]byte) []byte, _ []byte) { put(e(SecretAreaGUID), 0x811000) }), "area-overlap unfit"},
		"secret in image":        {table(func(e func([16]byte) []byte, _ []byte) { put(e(SecretAreaGUID), 0xffff0000) }), "area-overlap unfit"},
		"small hashes area":      {table(func(e func([16]byte) []byte, _ []byte) { put(e(HashesAreaGUID)[4:], hashesTable-1) }), "hashes-area unfit"},
		"no hashes area":         {table(func(e func([16]byte) []byte, _ []byte) { clear(e(HashesAreaGUID)) }), "kernel-loader unfit"},
		"hashes elsewhere":       {table(func(e func([16]byte) []byte, _ []byte) { put(e(HashesAreaGUID), 0x900000) }), "snp-metadata unfit"},
		"no reset vector":        {table(func(e func([16]byte) []byte, _ []byte) { clear(e(ResetVectorGUID)) }), "reset-vector unfit"},
		"no secrets page":        {table(func(_ func([16]byte) []byte, m []byte) { drop(2)(m) }), "snp-metadata unfit"},
		"no CPUID page":          {table(func(_ func([16]byte) []byte, m []byte) { drop(3)(m) }), "snp-metadata unfit"},
		"no hashes page":         {table(func(_ func([16]byte) []byte, m []byte) { put(m[6*12+8:], 4); put(m[6*12:], 0x900000) }), "snp-metadata unfit"},
		"section of no bytes":    {table(func(_ func([16]byte) []byte, m []byte) { put(m[4:], 0) }), "snp-metadata unfit"},
		"secrets of no bytes":    {table(func(_ func([16]byte) []byte, m []byte) { put(m[2*12+4:], 0) }), "snp-metadata unfit"},
		"unknown section":        {table(func(_ func([16]byte) []byte, m []byte) { put(m[4*12+8:], 0x77) }), "snp-metadata warning"},
		"sections overlap":       {table(func(_ func([16]byte) []byte, m []byte) { put(m[4:], 0xb000) }), "area-overlap unfit"},
		"section unaligned":      {table(func(_ func([16]byte) []byte, m []byte) { put(m, 0x800001) }), "malformed unfit"},
		"section in image":       {table(func(_ func([16]byte) []byte, m []byte) { put(m[4*12:], 0xffc00000) }), "area-overlap unfit"},
		"shell":                  {tree(func(tr *Tree) { addFile(dxe(t, tr), shells[0].String(), fileApplication, nil) }), "shell unfit"},
		"other shell":            {tree(func(tr *Tree) { addFile(dxe(t, tr), shells[1].String(), 7, nil) }), "shell unfit"},
		"application":            {tree(func(tr *Tree) { addFile(dxe(t, tr), strayGUID, fileApplication, nil) }), "boot-path unfit"},
		"second GRUB":            {tree(func(tr *Tree) { addFile(dxe(t, tr), grubGUID.String(), fileApplication, nil) }), "boot-path unfit"},
		"volume inside":          {tree(func(tr *Tree) { addFile(dxe(t, tr), strayGUID, fileVolumeImage, nil) }), "boot-path unfit"},
		"driver":                 {tree(func(tr *Tree) { addFile(dxe(t, tr), strayGUID, 7, nil) }), "build warning"},
		"second boot manager":    {tree(func(tr *Tree) { addFile(dxe(t, tr), bootManager.String(), 7, nil) }), "boot-manager unfit"},
		"other boot manager":     {tree(func(tr *Tree) { hide(t, tr, bootManager, grubGUID[:8]) }), "boot-manager unfit"},
		"legacy loader":          {tree(func(tr *Tree) { copy(find(t, tr, bootManager).Body[0x4000:], legacyLoader) }), "boot-manager unfit"},
		"loader checks nothing":  {tree(func(tr *Tree) { hide(t, tr, kernelLoader, hashesTableGUIDs[1][8:]) }), "kernel-loader unfit"},
		"no GRUB":                {tree(func(tr *Tree) { v, f := tr.grub(); v.Files[slices.Index(v.Files, f)] = f.pad() }), "grub unfit"},
		"empty GRUB":             {of(amdSev(t)), "grub unfit"},
		"no GRUB but a program":  {application(efiApplication(0x1000, 'g')), "grub unfit"},
		"Boot0000":               {variable("Boot0000"), "boot-variables unfit"},
		"BootOrder":              {variable("BootOrder"), "boot-variables unfit"},
		"DriverOrder":            {variable("DriverOrder"), "boot-variables unfit"},
		"BootNext":               {variable("BootNext"), "boot-variables unfit"},
		"Lang":                   {variable("Lang"), "variables warning"},
		"unfinished write":       {of(patched(0x43000, 0)), "boot-variables unfit"},
		"store's length lies":    {of(patched(0x48+16+3, 1)), "boot-variables unfit"},
		"store of another kind":  {of(patched(0x48, 1)), "boot-variables unfit"},
		"not ours":               {grub(func(o []object) []object { return slices.Delete(o, 2, 3) }), "grub-ours unfit"},
		"ours not last":          {grub(func(o []object) []object { o[1], o[2] = o[2], o[1]; return o }), "grub-ours unfit"},
		"normal":                 {grub(func(o []object) []object { o[0].data = ourELF("normal"); return o }), "grub-prompt unfit"},
		"unknown module":         {grub(func(o []object) []object { o[0].data = ourELF("hello"); return o }), "grub-modules warning"},
		"configuration":          {grub(func(o []object) []object { return append(o, object{grubConfig, []byte("normal\n")}) }), "grub-config unfit"},
		"unknown object":         {grub(func(o []object) []object { return append(o, object{9, nil}) }), "grub-config warning"},
		"no memdisk":             {grub(func(o []object) []object { return slices.Delete(o, 3, 4) }), "grub-settings unfit"},
		"second memdisk":         {grub(func(o []object) []object { return append(o, o[3]) }), "grub unfit"},
		"module is no ELF":       {grub(func(o []object) []object { o[0].data[0]++; return o }), "grub unfit"},
		"memdisk's file":         {grub(func(o []object) []object { o[3].data = memdiskOf("grub2.cfg", settingsText); return o }), "grub-settings unfit"},
		"settings' version":      {settings("version='1'", "version='2'"), "grub-settings unfit"},
		"a command":              {settings("serial=", "normal\nserial="), "grub-settings unfit"},
		"given twice":            {settings("serial=", "append=''\nserial="), "grub-settings unfit"},
		"one missing":            {settings("serial='0'\n", ""), "grub-settings unfit"},
		"no quotes":              {settings("serial='0'", "serial=0"), "grub-settings unfit"},
		"any disk":               {settings("0d5a1f4e-55c5-4e0e-9a5e-0f2b7a6a3c11", ""), "grub-disk note"},
		"prompt in the system":   {settings("console=ttyS0", "console=ttyS0 rd.break=pre-mount"), "grub-append unfit"},
		"another's command line": {settings("console=ttyS0", "quiet init=/bin/sh"), "grub-append unfit"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := test.lint(t)
			if !slices.Contains(levels(r), test.want) {
				t.Errorf("want %q, found %q", test.want, levels(r))
			}
			if r.Fit == strings.HasSuffix(test.want, " unfit") {
				t.Errorf("fit: %t", r.Fit)
			}
			for _, f := range r.Findings {
				if f.Problem == "" || f.Why == "" || f.Advice == "" {
					t.Errorf("a finding that says too little: %+v", f)
				}
				if f.Check == "malformed" && (f.Where == "" || f.Offset == nil) {
					t.Errorf("no offset: %+v", f)
				}
			}
		})
	}
}

const strayGUID = "11111111-2222-3333-4444-555555555555"

func find(t *testing.T, tree *Tree, id [16]byte) *File {
	t.Helper()
	for _, v := range tree.Volumes() {
		for _, f := range v.Files {
			if f.GUID == id {
				f.Body, f.Attributes = bytes.Clone(f.Body), f.Attributes&^fileChecksum
				return f
			}
		}
	}
	t.Fatalf("no file %x", id)
	return nil
}

// hide takes bytes out of a file wherever they stand in it.
func hide(t *testing.T, tree *Tree, id [16]byte, what []byte) {
	t.Helper()
	f := find(t, tree, id)
	body := bytes.ReplaceAll(f.Body, what, make([]byte, len(what)))
	if bytes.Equal(body, f.Body) {
		t.Fatal("nothing to hide")
	}
	f.Body = body
}

// setVariable puts a variable with one byte of data into an empty store.
func setVariable(b []byte, name string) {
	clear(b[:authVariableHeader])
	binary.LittleEndian.PutUint16(b, variableStart)
	b[2] = 0x3f
	size := 2 * (len(name) + 1)
	binary.LittleEndian.PutUint32(b[36:], uint32(size))
	binary.LittleEndian.PutUint32(b[40:], 1)
	for i := range size {
		b[authVariableHeader+i] = 0
	}
	for i := range len(name) {
		b[authVariableHeader+2*i] = name[i]
	}
}

func TestLintOptions(t *testing.T) {
	firmware := goodFirmware(t)
	if r := Lint(firmware, LintOptions{KernelHashes: true, SecretTableSize: 3072}); !r.Fit || len(sparing(r)) != 0 {
		t.Errorf("%+v", r)
	}
	if r := Lint(firmware, LintOptions{SecretTableSize: 3073}); r.Fit || !slices.Equal(sparing(r), []string{"secret-area unfit"}) {
		t.Errorf("%+v", r)
	}
	tree := mustUnpack(t, firmware)
	find(t, tree, kernelLoader).GUID[0]++
	if r := Lint(mustPack(t, tree), LintOptions{KernelHashes: true}); !slices.Contains(levels(r), "hashes-area unfit") {
		t.Errorf("no loader: %+v", r)
	}
	one, _ := json.Marshal(Lint(firmware, LintOptions{}))
	two, _ := json.Marshal(Lint(firmware, LintOptions{}))
	if !bytes.Equal(one, two) || !bytes.Contains(one, []byte(`"base_sha256":"`)) {
		t.Error("linted twice, the reports differ")
	}
}

// TestBaseDigest: what is bundled does not change it, and anything else does.
func TestBaseDigest(t *testing.T) {
	plain := small(t)
	want, err := BaseDigest(plain)
	if err != nil {
		t.Fatal(err)
	}
	one := mustBundle(t, plain, efiApplication(0x1000, 'g'))
	for _, b := range [][]byte{one, mustBundle(t, one, efiApplication(0x3000, 'h'))} {
		if got, err := BaseDigest(b); got != want || err != nil {
			t.Errorf("bundled: %x, %v", got, err)
		}
	}
	for name, change := range map[string]func(*Tree){
		"file's body": func(tr *Tree) { f := dxe(t, tr).Files[0]; find(t, tr, f.GUID).Body[0]++ },
		"file's type": func(tr *Tree) { dxe(t, tr).Files[0].Type ^= 1 },
		"file's GUID": func(tr *Tree) { dxe(t, tr).Files[0].GUID[0]++ },
		"more":        func(tr *Tree) { addFile(dxe(t, tr), strayGUID, 7, nil) },
		"less":        func(tr *Tree) { v := dxe(t, tr); v.Free += align(v.Files[0].size(), 8); v.Files = v.Files[1:] },
	} {
		tree := mustUnpack(t, plain)
		change(tree)
		if got := tree.baseDigest(); got == want {
			t.Errorf("%s: the same digest", name)
		}
	}
	if _, err := BaseDigest(plain[:100]); err == nil {
		t.Error("digest of no image")
	}
}

// TestLintDistribution lints the builds that distributions ship: each is named, and none may carry a secret
// as it is, for the plain ones have no place for it and the one for AMD SEV has no GRUB.
func TestLintDistribution(t *testing.T) {
	plain := []string{"secret-area unfit", "shell unfit", "kernel-loader unfit", "grub unfit"}
	amdsev, err := filepath.Rel(filepath.Join(testtool.Deps(), "root"), testtool.AmdSevFirmware(t))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]string{
		"usr/share/ovmf/OVMF.fd":         plain,
		"usr/share/OVMF/OVMF_CODE_4M.fd": plain,
		amdsev:                           {"grub unfit", "boot-fallback unfit"},
	} {
		t.Run(filepath.Base(name), func(t *testing.T) {
			data, err := os.ReadFile(testtool.File(t, name))
			if err != nil {
				t.Fatal(err)
			}
			r := Lint(data, LintOptions{})
			for _, w := range want {
				if !slices.Contains(levels(r), w) {
					t.Errorf("no %q among %q", w, levels(r))
				}
			}
			if r.Fit || name == amdsev && len(slices.Compact(sparing(r))) != 2 {
				t.Errorf("fit %t, findings %q", r.Fit, levels(r))
			}
			t.Logf("%s: %s", r.BaseSHA256, r.Build)
		})
	}
}
