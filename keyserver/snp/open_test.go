package snp_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sealboot/sealboot/keyserver/snp"
	"github.com/sealboot/sealboot/keyserver/snp/fake"
)

// TestKDSFolder: answers survive a restart, are bounded, and are believed no more than others.
func TestKDSFolder(t *testing.T) {
	s := newService(t)
	a := amds()[snp.Milan]
	dir := t.TempDir()
	folder, err := snp.NewFolder(dir, 2)
	if err != nil {
		t.Fatal(err)
	}
	open := func() *snp.KDS {
		k, _ := newKDS(t, s, func(c *snp.KDSConfig) { c.Keep = folder })
		return k
	}
	ask := func(k *snp.KDS, asked int) {
		t.Helper()
		if der, err := k.VCEK(t.Context(), snp.Milan, a.Chip, a.TCB); err != nil || !bytes.Equal(der, a.VCEK().Raw) {
			t.Error(err)
		}
		if n := s.count(); n != asked {
			t.Errorf("asked %d times, not %d", n, asked)
		}
	}
	ask(open(), 1)
	ask(open(), 0)
	files, err := filepath.Glob(dir + "/*.kds")
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	for name, spoil := range map[string]func() error{
		"changed":        func() error { return os.WriteFile(files[0], []byte("garbage"), 0o644) },
		"another's":      func() error { return os.WriteFile(files[0], a.ASK().Raw, 0o644) },
		"huge":           func() error { return os.WriteFile(files[0], make([]byte, 1<<20), 0o644) },
		"of tomorrow":    func() error { return os.Chtimes(files[0], now.AddDate(0, 0, 1), now.AddDate(0, 0, 1)) },
		"gone":           func() error { return os.Remove(files[0]) },
		"folder instead": func() error { return errors.Join(os.Remove(files[0]), os.Mkdir(files[0], 0o755)) },
	} {
		if err := spoil(); err != nil {
			t.Fatal(name, err)
		}
		ask(open(), 1)
		os.Remove(files[0])
		ask(open(), 1)
	}
	if err := os.WriteFile(dir+"/other.txt", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	k := open()
	for _, p := range []snp.Product{snp.Milan, snp.Genoa, snp.Turin} {
		if _, err := k.Revocations(t.Context(), p); err != nil {
			t.Error(err)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 3 { // two answers, and what is not ours
		t.Errorf("%v, %v", left, err)
	}
}

// TestOpen has every source at once, and refuses what says nothing.
func TestOpen(t *testing.T) {
	s, a, dir := newService(t), amds()[snp.Milan], t.TempDir()
	if err := os.Mkdir(dir+"/cache", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/amd.pem", fake.PEM(a.ASK(), a.ARK()), 0o644); err != nil {
		t.Fatal(err)
	}
	good1 := snp.Sources{Bundle: dir + "/amd.pem", KDS: s.URL, Cache: dir + "/cache", HTTP: s.Client(), Now: func() time.Time { return now }}
	v, end, err := snp.Open(a.Roots(), good1)
	if err != nil {
		t.Fatal(err)
	}
	judge(t, v, snp.Evidence{Report: a.Sign(good(a, 3))})
	end()
	if files, err := filepath.Glob(dir + "/cache/*.kds"); err != nil || len(files) != 2 { // VCEK and list
		t.Errorf("kept %v, %v", files, err)
	}
	for name, spoil := range map[string]func(*snp.Sources){
		"bundle gone":          func(s *snp.Sources) { s.Bundle += "x" },
		"cache gone":           func(s *snp.Sources) { s.Cache += "x" },
		"cache is a file":      func(s *snp.Sources) { s.Cache = s.Bundle },
		"cache and no service": func(s *snp.Sources) { s.KDS = "" },
		"no address":           func(s *snp.Sources) { s.KDS = "kds" },
		"no clock":             func(s *snp.Sources) { s.Now = nil },
	} {
		c := good1
		spoil(&c)
		if v, _, err := snp.Open(a.Roots(), c); err == nil || v != nil {
			t.Errorf("%s is taken", name)
		}
	}
	if _, _, err := snp.Open(nil, good1); err == nil {
		t.Error("no root is taken")
	}
	alone, end, err := snp.Open(a.Roots(), snp.Sources{})
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	judge(t, alone, snp.Evidence{Report: a.Sign(good(a, 3)), Certificates: a.Table()})
}
