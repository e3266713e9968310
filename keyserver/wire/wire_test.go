package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sealboot/sealboot/internal/guid"
)

func fill(n int, b byte) []byte { return bytes.Repeat([]byte{b}, n) }

// Good messages, one of each kind.
var (
	goodRequest     = SessionRequest{Image: "web-1.2_x", PDH: fill(2084, 1), CertChain: fill(3*2084, 2), CA: fill(2*(64+3*512), 3)}
	goodSession     = Session{ID: strings.Repeat("0f", 16), Policy: 0x0137000b, DHCert: fill(2084, 4), Blob: fill(128, 5), Expires: time.Unix(1_800_000_000, 0).UTC()}
	goodMeasurement = MeasurementRequest{Measurement: fill(48, 6), APIMajor: 1, APIMinor: 55, Build: 255}
	goodPacket      = Packet{Header: fill(52, 7), Secret: fill(3072, 8)}
	goodAsk         = ChallengeRequest{Image: "web-1.2_x"}
	goodChallenge   = Challenge{ID: strings.Repeat("1f", 40), Nonce: fill(32, 10), Expires: time.Unix(1_800_000_000, 0).UTC()}
	goodReport      = ReportRequest{Image: "web-1.2_x", Report: fill(0x4a0, 11), Certificates: fill(8<<10, 12), PublicKey: fill(32, 13)}
	goodSealed      = SealedSecret{Encapsulated: fill(32, 14), Secret: fill(500, 15)}
	goodConfirm     = ConfirmationRequest{Secret: guid.MustParse("736869e5-84f0-4973-92ec-06879ce3da0b"), MAC: fill(32, 9)}
	goodProblem     = Problem{Class: Refused, Request: "0123456789abcdef"}
)

// kind is one message's two ways, for tests that treat them alike.
type kind struct {
	name   string
	good   interface{ Encode() ([]byte, error) }
	decode func(io.Reader) (any, error)
}

func of[T any](decode func(io.Reader) (T, error)) func(io.Reader) (any, error) {
	return func(r io.Reader) (any, error) { return decode(r) }
}

var kinds = []kind{
	{"session request", goodRequest, of(DecodeSessionRequest)},
	{"session", goodSession, of(DecodeSession)},
	{"measurement request", goodMeasurement, of(DecodeMeasurementRequest)},
	{"packet", goodPacket, of(DecodePacket)},
	{"challenge request", goodAsk, of(DecodeChallengeRequest)},
	{"challenge", goodChallenge, of(DecodeChallenge)},
	{"report request", goodReport, of(DecodeReportRequest)},
	{"report request without certificates", ReportRequest{Image: "web-1.2_x", Report: fill(0x4a0, 11), Certificates: []byte{}, PublicKey: fill(32, 13)}, of(DecodeReportRequest)},
	{"sealed secret", goodSealed, of(DecodeSealedSecret)},
	{"confirmation request", goodConfirm, of(DecodeConfirmationRequest)},
	{"problem", goodProblem, of(func(r io.Reader) (Problem, error) { return DecodeProblem(r, Refused.Status()) })},
}

func encode(t testing.TB, m interface{ Encode() ([]byte, error) }) string {
	t.Helper()
	b, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestMessages encodes and decodes each kind, and spoils its form in every way that fits all of them.
func TestMessages(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			good := encode(t, k.good)
			m, err := k.decode(strings.NewReader(good))
			if err != nil || !reflect.DeepEqual(m, k.good) {
				t.Fatalf("%+v, %v", m, err)
			}
			if m, err := k.decode(strings.NewReader(" \n" + strings.ReplaceAll(good, `":`, `" : `) + "\r\n")); err != nil || !reflect.DeepEqual(m, k.good) {
				t.Fatalf("with white space: %+v, %v", m, err)
			}
			first := good[1:strings.IndexAny(good, ",}")]
			name := first[:strings.Index(first, ":")]
			for bad, body := range map[string]string{
				"empty":           "",
				"empty object":    "{}",
				"null":            "null",
				"unknown field":   `{"x":"1",` + good[1:],
				"field twice":     "{" + first + "," + good[1:],
				"field missing":   "{" + good[len(first)+2:],
				"in capitals":     "{" + strings.ToUpper(name) + good[1+len(name):],
				"null value":      "{" + name + ":null" + good[1+len(first):],
				"boolean":         "{" + name + ":true" + good[1+len(first):],
				"nested object":   "{" + name + `:{"a":1}` + good[1+len(first):],
				"nested array":    "{" + name + `:["a"]` + good[1+len(first):],
				"deep":            "{" + name + ":" + strings.Repeat("[", 30_000),
				"second object":   good + good,
				"second value":    good + " 1",
				"trailing byte":   good + "\x00",
				"trailing comma":  good[:len(good)-1] + ",}",
				"cut short":       good[:len(good)-1],
				"byte order mark": "\ufeff" + good,
				"in an array":     "[" + good + "]",
				"not UTF-8":       "{\"\xff\":1," + good[1:],
				"comment":         "/**/" + good,
			} {
				m, err := k.decode(strings.NewReader(body))
				if !errors.Is(err, ErrMalformed) {
					t.Errorf("%s: %v", bad, err)
				}
				if !reflect.ValueOf(m).IsZero() {
					t.Errorf("%s: a message came with the error", bad)
				}
			}
			if _, err := k.decode(strings.NewReader(good + strings.Repeat(" ", MaxBody-len(good)))); err != nil {
				t.Errorf("of exactly the largest size: %v", err)
			}
			if _, err := k.decode(strings.NewReader(good + strings.Repeat(" ", MaxBody-len(good)+1))); !errors.Is(err, ErrTooLarge) {
				t.Errorf("one byte too many: %v", err)
			}
			if _, err := k.decode(io.MultiReader(strings.NewReader(good), failing{})); !errors.Is(err, errBroken) {
				t.Errorf("broken connection: %v", err)
			}
		})
	}
}

// goodSealedText is goodSealed's secret but for its last bytes.
var goodSealedText = strings.Repeat("Dw8P", 162)

// TestLargestReport: the most certificates that are taken fit into a body.
func TestLargestReport(t *testing.T) {
	m := ReportRequest{Image: "web-1.2_x", Report: fill(0x4a0, 11), Certificates: fill(32<<10, 12), PublicKey: fill(32, 13)}
	if got, err := DecodeReportRequest(strings.NewReader(encode(t, m))); err != nil || !reflect.DeepEqual(got, m) {
		t.Error(err)
	}
	m.Certificates = fill(32<<10+1, 12)
	if _, err := DecodeReportRequest(strings.NewReader(encode(t, m))); !errors.Is(err, ErrMalformed) {
		t.Error(err)
	}
}

var errBroken = errors.New("broken connection")

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errBroken }

// TestValues spoils one value at a time.
func TestValues(t *testing.T) {
	for _, bad := range []struct{ kind, name, from, to string }{
		{"session request", "no image", `"web-1.2_x"`, `""`},
		{"session request", "image of a path", `"web-1.2_x"`, `"a/b"`},
		{"session request", "image of a dot", `"web-1.2_x"`, `".x"`},
		{"session request", "image of 65 letters", `"web-1.2_x"`, `"` + strings.Repeat("a", 65) + `"`},
		{"session request", "image of other letters", `"web-1.2_x"`, `"wéb"`},
		{"session request", "image is a number", `"web-1.2_x"`, `1`},
		{"session request", "certificate too short", "AQEB", ""},
		{"session request", "certificate too long", `"pdh":"`, `"pdh":"AQEB`},
		{"session request", "base64 of URLs", "AwMD", "-_-_"},
		{"session request", "white space in base64", "AQEB", "AQEB\\n"},
		{"session", "id too short", `"0f`, `"`},
		{"session", "id in capitals", `"0f`, `"0F`},
		{"session", "policy of 33 bits", "20381707", "4294967296"},
		{"session", "policy below zero", "20381707", "-1"},
		{"session", "policy with exponent", "20381707", "2e7"},
		{"session", "policy as text", "20381707", `"20381707"`},
		{"session", "time with a fraction", "00Z", "00.5Z"},
		{"session", "time of another zone", "00Z", "00+01:00"},
		{"session", "no time", "2027-", "x-"},
		{"measurement request", "build of 9 bits", "255", "256"},
		{"measurement request", "measurement too long", `"measurement":"`, `"measurement":"AAAA`},
		{"packet", "secret of no block", "CAgI", ""},
		{"packet", "bits left over in base64", "Bw==", "Bx=="},
		{"challenge request", "image of a path", `"web-1.2_x"`, `"a/b"`},
		{"challenge", "id in capitals", `"1f`, `"1F`},
		{"challenge", "id of a session", strings.Repeat("1f", 40), strings.Repeat("1f", 16)},
		{"report request", "image of a path", `"web-1.2_x"`, `"a/b"`},
		{"challenge", "nonce too short", "CgoK", ""},
		{"challenge", "no time", "2027-", "x-"},
		{"report request", "report too short", "CwsL", ""},
		{"report request", "report too long", `"report":"`, `"report":"AAAA`},
		{"report request without certificates", "certificates missing", `"certificates":"",`, ""},
		{"report request", "key too long", `"public_key":"`, `"public_key":"AAAA`},
		{"sealed secret", "encapsulation too short", "Dg4O", ""},
		{"sealed secret", "empty", goodSealedText, ""},
		{"confirmation request", "secret in capitals", "736869e5", "736869E5"},
		{"confirmation request", "secret of zeros", "736869e5-84f0-4973-92ec-06879ce3da0b", "00000000-0000-0000-0000-000000000000"},
		{"confirmation request", "no GUID", "736869e5-", "736869e5"},
		{"confirmation request", "previous version", "current", "previous"},
		{"confirmation request", "MAC too short", "CQkJ", ""},
		{"confirmation request", "MAC too long", "CQkJ", "CQkJCQkJ"},
		{"problem", "unknown class", "refused", "accepted"},
		{"problem", "other title", "no secret", "every secret"},
		{"problem", "other status", "403", "404"},
		{"problem", "no request", "urn:sealboot:request:", ""},
		{"problem", "escape sequence", "0123456789abcdef", `\u001b[31m`},
	} {
		found := false
		for _, k := range kinds {
			if k.name != bad.kind {
				continue
			}
			found = true
			good := encode(t, k.good)
			body := strings.Replace(good, bad.from, bad.to, 1)
			if body == good {
				t.Errorf("%s, %s: nothing was spoiled", bad.kind, bad.name)
			}
			if m, err := k.decode(strings.NewReader(body)); !errors.Is(err, ErrMalformed) || !reflect.ValueOf(m).IsZero() {
				t.Errorf("%s, %s: %v", bad.kind, bad.name, err)
			}
		}
		if !found {
			t.Errorf("no kind %q", bad.kind)
		}
	}
}

// TestClasses holds the table of problems together: one type of each, a status and a title that depend on nothing.
func TestClasses(t *testing.T) {
	if len(Classes()) != 20 {
		t.Errorf("%d classes", len(Classes()))
	}
	seen := map[Class]bool{}
	for _, c := range Classes() {
		if seen[c] || c.Title() == "" || c.Status() < 400 {
			t.Errorf("class %q: status %d, title %q", c, c.Status(), c.Title())
		}
		seen[c] = true
		p := Problem{Class: c, Request: "1"}
		again, err := DecodeProblem(strings.NewReader(encode(t, p)), c.Status())
		if err != nil || again != p {
			t.Errorf("class %q: %+v, %v", c, again, err)
		}
	}
	if c := Class("other"); c.Status() != 500 || c.Title() != "" {
		t.Error("an unknown class is known")
	}
}

// TestConfirmationMAC holds the MAC to a value that `{ printf 'sealboot used 1\0'; printf 736869e5-84f0-4973-92ec-06879ce3da0b; } |
// openssl dgst -sha256 -mac HMAC -macopt hexkey:$(printf '07%.0s' $(seq 32))` gave.
func TestConfirmationMAC(t *testing.T) {
	const want = "777b01aca3141b9d996e75a860f10a6d01dfd5b8f5fa17e7e61114c5b7e6a9ad"
	if got := hex.EncodeToString(ConfirmationMAC(fill(32, 7), goodConfirm.Secret)); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
