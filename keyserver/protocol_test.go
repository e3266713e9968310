package keyserver

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sealboot/sealboot/keyserver/snp"
	"github.com/sealboot/sealboot/keyserver/snp/seal"
	"github.com/sealboot/sealboot/keyserver/wire"
	"github.com/sealboot/sealboot/sev"
)

// TestProtocolDocument holds PROTOCOL.md against the code: the classes and the numbers.
func TestProtocolDocument(t *testing.T) {
	text, err := os.ReadFile("PROTOCOL.md")
	must(t, err)
	document := strings.Join(strings.Fields(string(text)), " ")
	rows := regexp.MustCompile("(?m)^\\| (\\d{3}) \\| `([a-z-]+)` \\|").FindAllSubmatch(text, -1)
	if len(rows) != len(wire.Classes()) {
		t.Errorf("document has %d classes, the code %d", len(rows), len(wire.Classes()))
	}
	for i, class := range wire.Classes() {
		if want := fmt.Sprintf("%d %s", class.Status(), class); i < len(rows) && string(rows[i][1])+" "+string(rows[i][2]) != want {
			t.Errorf("row %d is %s %s, want %s", i, rows[i][1], rows[i][2], want)
		}
	}
	for what, words := range map[string]string{
		"largest body":      fmt.Sprintf("at most %s bytes", thousands(wire.MaxBody)),
		"time for a header": fmt.Sprintf("%d s for the header", defaultLimits.header/time.Second),
		"time for a body":   fmt.Sprintf("%d s for all of it", defaultLimits.read/time.Second),
		"certificates":      fmt.Sprintf("PEK, OCA, CEK, %s bytes", thousands(3*sev.CertificateSize)),
		"session":           fmt.Sprintf("the session data, %d bytes", sev.SessionSize),
		"measurement":       fmt.Sprintf("MAC and nonce, %d bytes", sev.MeasurementSize),
		"packet header":     fmt.Sprintf("%d bytes for LAUNCH_SECRET", sev.PacketHeaderSize),
		"secret":            fmt.Sprintf("at most %s, encrypted", thousands(sev.MaxSecret)),
		"secret table":      "header GUID " + sev.SecretTableHeader.String(),
		"passphrase":        sev.DiskPassphrase.String() + " | the disk's passphrase |",
		"previous":          sev.PreviousPassphrase.String() + " | the disk's passphrase before",
		"pin":               sev.HeaderPin.String() + " | the 32 bytes",
		"receipt":           sev.ReleaseReceipt.String() + ", the release receipt: the session's id in 16 bytes, then a key of 32 bytes",
		"digests tried":     fmt.Sprintf("of up to %d not even how many", matchBlock),
		"report":            fmt.Sprintf("ATTESTATION_REPORT, %s bytes", thousands(snp.ReportSize)),
		"report's certs":    fmt.Sprintf("at most %s bytes: see below", thousands(snp.MaxCertificates)),
		"nonce":             fmt.Sprintf("nonce (%d) | public_key (%d) | image", seal.NonceSize, seal.PublicKeySize),
		"encapsulated":      fmt.Sprintf("encapsulated key, %d bytes", seal.EncapsulatedSize),
		"sealed":            fmt.Sprintf("%d bytes more than it, at most %s", seal.Overhead, thousands(sev.MaxSecret+seal.Overhead)),
		"working":           fmt.Sprintf("At most %d requests are worked on", maxWorking),
		"connections":       fmt.Sprintf("and %s connections are open", thousands(defaultLimits.connections)),
		"rate":              fmt.Sprintf("may make %d requests a second", DefaultRate),
		"ended sessions":    fmt.Sprintf("no longer than for %s newer sessions", thousands(maxEnded)),
	} {
		if !strings.Contains(document, words) {
			t.Errorf("%s: document does not say %q", what, words)
		}
	}
	example := regexp.MustCompile("(?s)```json\n(.*?)```").FindSubmatch(text)
	if example == nil {
		t.Fatal("document has no policy")
	}
	if _, err := ReadPolicy(bytes.NewReader(example[1])); err != nil {
		t.Errorf("the document's policy: %v", err)
	}
	if receiptSize != 16+32 {
		t.Errorf("receipt of %d bytes", receiptSize)
	}
	if keepEnded != time.Hour || burstSeconds != 5 {
		t.Error("document says one hour and five seconds")
	}
}

func thousands(n int) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%s,%03d", thousands(n/1000), n%1000)
}

// TestBusyServer has as much under way as it takes: the next request is told so.
func TestBusyServer(t *testing.T) {
	l := newLab(t)
	l.register("web")
	for range maxWorking {
		l.server.working <- struct{}{}
	}
	refusedAs(t, newLaunch(platforms()[0], "web").begin(t.Context(), l.client), wire.Busy)
	for range maxWorking {
		<-l.server.working
	}
	l.good("web")
}
