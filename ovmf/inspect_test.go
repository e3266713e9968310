package ovmf

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"testing"

	"github.com/sealboot/sealboot/internal/testtool"
)

func TestInspect(t *testing.T) {
	grub := efiApplication(0x1000, 'g')
	before, err := Inspect(small(t))
	if err != nil {
		t.Fatal(err)
	}
	after, err := Inspect(mustBundle(t, small(t), grub))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(grub)
	if before.GRUB.Size != 0 || before.GRUB.SHA256 != "" || after.GRUB.Size != len(grub) || after.GRUB.SHA256 != hex.EncodeToString(sum[:]) {
		t.Errorf("GRUB %+v, then %+v", before.GRUB, after.GRUB)
	}
	if before.GRUB.Room != after.GRUB.Room {
		t.Errorf("room for %d bytes, then for %d", before.GRUB.Room, after.GRUB.Room)
	}
	if len(before.Problems)+len(after.Problems) != 0 {
		t.Errorf("problems %q, then %q", before.Problems, after.Problems)
	}
	if before.Size != after.Size || *before.SecretArea != *after.SecretArea || *before.HashesArea != *after.HashesArea ||
		*before.ResetVector != *after.ResetVector || len(before.Volumes) != 4 || len(before.Table) != 6 || before.SHA256 == after.SHA256 {
		t.Errorf("%+v\n%+v", before, after)
	}
}

// TestInspectPlain: what a build for everybody lacks is named, all of it.
func TestInspectPlain(t *testing.T) {
	data, err := os.ReadFile(testtool.File(t, "usr/share/ovmf/OVMF.fd", "usr/share/OVMF/OVMF_CODE_4M.fd"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := Inspect(data)
	if err != nil {
		t.Fatal(err)
	}
	if r.SecretArea != nil || r.HashesArea != nil || r.GRUB != nil || len(r.Problems) != 3 { // area, shell, no place for GRUB
		t.Errorf("%+v", r)
	}
}

func TestInspectWithoutVolumes(t *testing.T) {
	data := small(t)
	r, err := Inspect(data[len(data)-4096:])
	if err != nil || len(r.Problems) != 1 || r.SecretArea == nil || r.GRUB != nil {
		t.Errorf("%+v, %v", r, err)
	}
	if r, err := Inspect(data[:4096]); r != nil || !errors.Is(err, ErrNotOVMF) {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestInspectJSON pins the names that scripts read.
func TestInspectJSON(t *testing.T) {
	r, err := Inspect(small(t))
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sha256", "size", "base", "secret_area", "hashes_area", "reset_vector", "table", "metadata", "volumes", "grub", "problems"} {
		if got[name] == nil {
			t.Errorf("no %q in %s", name, text)
		}
		delete(got, name)
	}
	if len(got) != 0 {
		t.Errorf("fields that the help does not name: %v", got)
	}
}
