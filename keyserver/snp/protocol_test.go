package snp

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// TestProtocolDocument holds PROTOCOL.md against this package's numbers.
func TestProtocolDocument(t *testing.T) {
	text, err := os.ReadFile("../PROTOCOL.md")
	if err != nil {
		t.Fatal(err)
	}
	document := strings.Join(strings.Fields(string(text)), " ")
	for _, words := range []string{
		fmt.Sprintf("At most %d entries", maxEntries), fmt.Sprintf("in DER one behind the other; at most %d", maxEntries),
		fmt.Sprintf("of at most %d,%03d bytes", maxCertificate/1000, maxCertificate%1000), fmt.Sprintf("RSA keys of %d bits", rsaBits),
		fmt.Sprintf("answers of at most %d,%03d bytes", maxAnswer/1000, maxAnswer%1000),
		"Milan, Genoa or Turin", "of version 2, 3 or 5", "19h with models 00h to 0Fh is Milan", "1Ah with models 00h to 11h Turin",
	} {
		if !strings.Contains(document, words) {
			t.Errorf("document does not say %q", words)
		}
	}
	if DefaultInterval != 10*time.Second || burst != 3 || firstPause != 10*time.Second || longestWait != 10*time.Minute || maxRetry != time.Hour ||
		noneFor != time.Hour || listFor != 12*time.Hour || len(reportVersions) != 3 || len(products) != 3 {
		t.Error("document says something else of AMD's key service")
	}
}
