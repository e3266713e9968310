package storekey_test

import (
	"bytes"
	"crypto/rand"
	"testing"

	"github.com/sealboot/sealboot/keyserver"
	"github.com/sealboot/sealboot/keyserver/storekey"
)

// TestTextIsTheServers holds the text form to the one that the key server reads.
func TestTextIsTheServers(t *testing.T) {
	if storekey.TextSize != keyserver.KeyTextSize {
		t.Fatalf("%d bytes, the key server's has %d", storekey.TextSize, keyserver.KeyTextSize)
	}
	raw, err := storekey.New(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	text, err := storekey.Text(raw)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := keyserver.ParseKey(text); err != nil {
		t.Fatal(err)
	}
	text, err = keyserver.NewKeyText(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	raw, err = storekey.ParseText(text)
	if err != nil {
		t.Fatal(err)
	}
	again, err := storekey.Text(raw)
	if err != nil || !bytes.Equal(again, text) {
		t.Fatalf("%q is written again as %q, %v", text, again, err)
	}
}
