package snp_test

import (
	"bytes"
	"testing"

	"github.com/sealboot/sealboot/keyserver/snp"
)

func bundle(t testing.TB, data []byte) *snp.Bundle {
	t.Helper()
	b, err := snp.ReadBundleFile("bundle", bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return b
}
