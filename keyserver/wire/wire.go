// Package wire holds the messages between the key server and hosts, guests and administrators, as PROTOCOL.md
// writes them down: flat JSON objects, binary values in base64. Some of an administrator's messages have lists, of
// texts or of such objects.
//
// Decoding is strict, on both sides: at most MaxBody bytes; one object and nothing behind it;
// every field of the message exactly once, in its exact spelling, and no other; no nesting but those lists;
// base64 with padding and nothing else in it; binary values of exactly the length that the
// AMD SEV API (publication 55766) gives them. What does not decode is an error that wraps
// ErrMalformed or ErrTooLarge, and the message beside it is the zero value.
//
// The package knows no policy, and of cryptography one MAC, so that a guest's agent can use it.
package wire

import (
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/sealboot/sealboot/internal/guid"
)

// MaxBody bounds every request and answer, in bytes. The largest messages are a session
// request, 16 KiB in base64 with RSA keys of 4096 bits, and a report with the largest certificates that are taken, 45 KiB.
const MaxBody = 64 << 10

// MediaType is the type of every request and every answer that is not a problem.
const MediaType = "application/json"

// IsMessage says whether a header is that of a request whose body is a message as it stands: not of another character set,
// not compressed.
func IsMessage(h http.Header) bool {
	media, parameters, err := mime.ParseMediaType(h.Get("Content-Type"))
	charset, has := parameters["charset"]
	return err == nil && media == MediaType && len(h.Values("Content-Type")) == 1 &&
		(!has || strings.EqualFold(charset, "utf-8")) && len(h.Values("Content-Encoding")) == 0
}

// Lengths of the binary values (AMD SEV API 55766: appendices B and C for certificates, LAUNCH_START,
// LAUNCH_MEASURE and LAUNCH_SECRET for the others).
const (
	certificateSize  = 2084
	chainSize        = 3 * certificateSize // PEK, OCA, CEK
	minCASize        = 2 * (64 + 3*256)    // ASK and ARK with keys of 2048 bits
	maxCASize        = 2 * (64 + 3*512)    // and of 4096 bits
	sessionBlobSize  = 128
	measurementSize  = 48
	packetHeaderSize = 52
	maxSecretSize    = 16 << 10 // the most that LAUNCH_SECRET takes
)

// Lengths of the binary values of a release at run time: an attestation report (AMD SEV-SNP ABI 56860), what packages snp and snp/seal say.
const (
	nonceSize        = 32
	reportSize       = 0x4a0
	maxCertificates  = 32 << 10
	publicKeySize    = 32 // X25519
	encapsulatedSize = 32
	sealOverhead     = 16
)

// Errors that a reader of messages tells apart.
var (
	ErrMalformed = errors.New("malformed message")
	ErrTooLarge  = fmt.Errorf("message of more than %d bytes", MaxBody)
)

// SessionRequest asks for a launch session: POST /v1/sessions.
type SessionRequest struct {
	Image     string // name under which the owner registered the image
	PDH       []byte // the platform's Diffie-Hellman certificate
	CertChain []byte // PEK, OCA, CEK
	CA        []byte // ASK, ARK
}

// Session answers it: what LAUNCH_START takes. It holds no secret: TIK and TEK are wrapped for the platform.
type Session struct {
	ID      string    // names the session in the next request
	Policy  uint32    // guest policy, bound into Blob
	DHCert  []byte    // the owner's Diffie-Hellman certificate (godh)
	Blob    []byte    // the session data
	Expires time.Time // whole seconds, UTC
}

// MeasurementRequest brings a session's measurement: POST /v1/sessions/{id}/measurement.
type MeasurementRequest struct {
	Measurement []byte // MAC and nonce, as query-sev-launch-measure gives them
	APIMajor    uint8  // the three that query-sev gives, counted into the MAC
	APIMinor    uint8
	Build       uint8
}

// Packet answers it: what sev-inject-launch-secret takes. Secret is encrypted for the guest's memory.
type Packet struct {
	Header []byte
	Secret []byte
}

// ConfirmationRequest tells that a guest has used a secret's new version: POST /v1/sessions/{id}/confirmation, of the session
// in which it got it. It is answered by 204, without a body.
type ConfirmationRequest struct {
	Secret guid.GUID // of its entry in the secret table
	MAC    []byte    // ConfirmationMAC under the release receipt's key
}

// confirmationVersion is all that a guest can confirm.
const confirmationVersion = "current"

// ConfirmationMAC is HMAC-SHA256 under a release receipt's key over "sealboot used 1", a zero byte and the secret's GUID
// in its text form, lower case.
func ConfirmationMAC(key []byte, secret guid.GUID) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte("sealboot used 1\x00" + secret.String()))
	return h.Sum(nil)
}

// ChallengeRequest asks for a challenge: POST /v1/challenges.
type ChallengeRequest struct {
	Image string // name under which the owner registered the image
}

// Challenge answers it: what a running guest's report must bind.
type Challenge struct {
	ID      string // names the challenge in the next request; its first 32 digits name the session that the report makes
	Nonce   []byte
	Expires time.Time // whole seconds, UTC
}

// ReportRequest brings a challenge's report: POST /v1/challenges/{id}/report.
type ReportRequest struct {
	Image        string // for which the challenge was made
	Report       []byte // as the guest's firmware gives it
	Certificates []byte // the table that came with it, PEM or DER; may be empty
	PublicKey    []byte // of the guest's one-time key, which the report binds
}

// SealedSecret answers it: the secret table, encrypted for the guest's one-time key.
type SealedSecret struct {
	Encapsulated []byte
	Secret       []byte
}

// ValidImage says whether s can name an image: 1 to 64 letters, digits, '.', '_' and '-', beginning with a
// letter or digit, so that a name is safe in a URL, a log line and a file name.
func ValidImage(s string) bool {
	if len(s) == 0 || len(s) > 64 {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case i > 0 && (c == '.' || c == '_' || c == '-'):
		default:
			return false
		}
	}
	return true
}

// ValidSessionID says whether s has the form of a session's name: 32 lower-case hexadecimal digits.
func ValidSessionID(s string) bool { return isHex(s, 32) }

func isHex(s string, digits int) bool {
	if len(s) != digits {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !('0' <= c && c <= '9' || 'a' <= c && c <= 'f') {
			return false
		}
	}
	return true
}

// ValidChallengeID says whether s has the form of a challenge's id: 80 lower-case hexadecimal digits.
func ValidChallengeID(s string) bool { return isHex(s, 80) }

func checkChallengeID(s string) error {
	if !ValidChallengeID(s) {
		return fmt.Errorf("%w: id is not 80 hexadecimal digits", ErrMalformed)
	}
	return nil
}

func checkImage(s string) error {
	if !ValidImage(s) {
		return fmt.Errorf("%w: image is no name of 1 to 64 letters, digits, '.', '_', '-'", ErrMalformed)
	}
	return nil
}

func checkSessionID(s string) error {
	if !ValidSessionID(s) {
		return fmt.Errorf("%w: id is not 32 hexadecimal digits", ErrMalformed)
	}
	return nil
}
