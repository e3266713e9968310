package wire

import (
	"time"

	"github.com/sealboot/sealboot/internal/guid"
)

// Bounds of what goes between an administrator and the key server, in bytes. Only a request that carries documents, and whose
// credential was taken before, may have more than MaxBody.
const (
	MaxDocuments = 2304 << 10 // a boot record of 1 MiB and a policy of 512 KiB in base64, and secrets
	MaxAnswer    = 16 << 20   // lists
	MaxRows      = 500        // rows of the audit in one answer
)

// Nothing is the request of an act that needs no more than its path.
type Nothing struct{}

// Registration registers an image: POST /v1/admin/images.
type Registration struct {
	Image      string  `json:"image" wire:"name"`
	Record     []byte  `json:"record" wire:"1-1048576"`
	Policy     []byte  `json:"policy" wire:"1-524288"`
	Passphrase []byte  `json:"passphrase" wire:"1-16384"`
	Secrets    []Given `json:"secrets"`
}

// Replacement is an image's next version: PUT /v1/admin/images/{image}.
type Replacement struct {
	Replaces   int64   `json:"replaces"` // version that the administrator has seen; 0: whatever it is
	Record     []byte  `json:"record" wire:"1-1048576"`
	Policy     []byte  `json:"policy" wire:"1-524288"`
	Passphrase []byte  `json:"passphrase" wire:"0-16384"` // empty: as before
	Secrets    []Given `json:"secrets"`
}

// Given is a secret with its value.
type Given struct {
	Secret guid.GUID `json:"secret"`
	Data   []byte    `json:"data" wire:"1-16384"`
}

// Registered answers both.
type Registered struct {
	Image   string `json:"image" wire:"name"`
	Version int64  `json:"version"`
}

// Images lists them by name: GET /v1/admin/images.
type Images struct {
	Images []Image `json:"images"`
}

// Image is what is told of an image in the list.
type Image struct {
	Image         string    `json:"image" wire:"name"`
	Version       int64     `json:"version"`
	Registered    time.Time `json:"registered"`
	State         string    `json:"state" wire:"state"`
	Mode          string    `json:"mode"`         // of the policy's first way in: sev, seves, snp
	GuestPolicy   string    `json:"guest_policy"` // of SEV sessions, in words; empty without that way in
	PolicyVersion int64     `json:"policy_version"`
	Digests       []string  `json:"digests"` // launch digests of all ways in
	Disk          string    `json:"disk"`    // UUID
	Released      int64     `json:"released"`
}

// Documents are an image's own: GET /v1/admin/images/{image}.
type Documents struct {
	Image         string `json:"image" wire:"name"`
	Version       int64  `json:"version"`
	PolicyVersion int64  `json:"policy_version"`
	State         string `json:"state" wire:"state"`
	Record        []byte `json:"record" wire:"1-1048576"`
	Policy        []byte `json:"policy" wire:"1-524288"`
}

// Policies lists the policies that an image has had, the newest last: GET /v1/admin/images/{image}/policies.
type Policies struct {
	Policies []Policy `json:"policies"`
}

// Policy is what is told of a policy in the list.
type Policy struct {
	Version      int64     `json:"version"`
	ImageVersion int64     `json:"image_version"`
	Set          time.Time `json:"set"`
	SHA256       string    `json:"sha256" wire:"sha256"` // of the document
}

// PolicyDocument is one of them: GET /v1/admin/images/{image}/policies/{version}.
type PolicyDocument struct {
	Version      int64     `json:"version"`
	ImageVersion int64     `json:"image_version"`
	Set          time.Time `json:"set"`
	Policy       []byte    `json:"policy" wire:"1-524288"`
}

// NewPolicy sets an image's policy: PUT /v1/admin/images/{image}/policy.
type NewPolicy struct {
	Replaces int64  `json:"replaces"` // version that the administrator has seen; 0: whatever it is
	Policy   []byte `json:"policy" wire:"1-524288"`
}

// PolicyVersion answers it.
type PolicyVersion struct {
	Version int64 `json:"version"`
}

// Trial asks what a policy would say: POST /v1/admin/images/{image}/policy/test. Nothing is released, counted or written. The
// evidence is a launch digest or a report; with neither, it is about the circumstances alone.
type Trial struct {
	Policy       []byte `json:"policy" wire:"0-524288"` // empty: the image's own
	Address      string `json:"address" wire:"address"`
	Platform     string `json:"platform"`             // as the audit names it; may be empty
	Chip         string `json:"chip"`                 // may be empty
	Digest       string `json:"digest" wire:"digest"` // that a machine with SEV or SEV-ES would have
	APIMajor     uint8  `json:"api_major"`            // of its firmware
	APIMinor     uint8  `json:"api_minor"`
	Build        uint8  `json:"build"`
	Report       []byte `json:"report" wire:"0-1184"` // of a machine with SEV-SNP; it says address alone beside
	Certificates []byte `json:"certificates" wire:"0-32768"`
}

// Verdict answers it.
type Verdict struct {
	Verdict    string   `json:"verdict" wire:"verdict"`
	Digest     string   `json:"digest" wire:"digest"` // of the record; empty: none fits
	Complaints []string `json:"complaints"`
	Reason     string   `json:"reason"` // what is likely behind a digest that does not fit
}

// Secrets lists an image's secrets without their values: GET /v1/admin/images/{image}/secrets.
type Secrets struct {
	Secrets []Secret `json:"secrets"`
}

// Secret is what is told of a secret.
type Secret struct {
	Secret   guid.GUID `json:"secret"`
	Version  int64     `json:"version"`
	Made     time.Time `json:"made"`
	Bytes    int64     `json:"bytes"`
	Previous int64     `json:"previous"` // version before, while a rotation is under way; 0: none is
	State    string    `json:"state" wire:"state"`
}

// SecretData brings a value: PUT /v1/admin/images/{image}/secrets/{secret}, POST …/rotation.
type SecretData struct {
	Data []byte `json:"data" wire:"1-16384"`
}

// SecretVersion answers it, and the end of a rotation by DELETE …/rotation.
type SecretVersion struct {
	Secret  guid.GUID `json:"secret"`
	Version int64     `json:"version"`
}

// NewRevocation takes something out of use: POST /v1/admin/revocations.
type NewRevocation struct {
	Kind   string `json:"kind" wire:"kind"`
	Value  string `json:"value"`
	Reason string `json:"reason"`
}

// Revocations lists them: GET /v1/admin/revocations.
type Revocations struct {
	Revocations []Revocation `json:"revocations"`
}

// Revocation is one of them.
type Revocation struct {
	Kind   string    `json:"kind" wire:"kind"`
	Value  string    `json:"value"`
	Reason string    `json:"reason"`
	Time   time.Time `json:"time"`
}

// Rows are rows of the audit: GET /v1/admin/audit.
type Rows struct {
	Rows []Row `json:"rows"`
	Next int64 `json:"next"` // last row that was looked at: what to ask for as "after"
	Size int64 `json:"size"` // rows that there are
}

// Row is one of them.
type Row struct {
	Seq   int64  `json:"seq"`
	Entry []byte `json:"entry" wire:"2-65536"` // a JSON object, as the chain's hash covers it
	Hash  string `json:"hash" wire:"sha256"`
}

// Checkpoint is a signed note: GET and POST /v1/admin/audit/checkpoint.
type Checkpoint struct {
	Note []byte `json:"note" wire:"1-16384"`
}

// AuditKey is the public key of checkpoints: GET /v1/admin/audit/key.
type AuditKey struct {
	Key string `json:"key"`
}

// Principals lists those whom the server knows: GET /v1/admin/principals.
type Principals struct {
	Principals []Principal `json:"principals"`
}

// Principal is one of them.
type Principal struct {
	Name    string    `json:"name" wire:"name"`
	Kind    string    `json:"kind" wire:"holder"`
	Digest  string    `json:"digest" wire:"sha256"` // of the credential
	Roles   string    `json:"roles" wire:"roles"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
}

// NewPrincipal makes somebody known: POST /v1/admin/principals. The server gets a digest of the credential, as it keeps it: who asks has
// made the token, or has the certificate.
type NewPrincipal struct {
	Name    string    `json:"name" wire:"name"`
	Kind    string    `json:"kind" wire:"holder"`
	Digest  string    `json:"digest" wire:"sha256"` // of a token's 32 bytes, or of a certificate's SubjectPublicKeyInfo
	Roles   string    `json:"roles" wire:"roles"`
	Expires time.Time `json:"expires"`
}

// Status says who asks, and how the server stands: GET /v1/admin/status.
type Status struct {
	Principal    string    `json:"principal" wire:"name"`
	Roles        string    `json:"roles" wire:"roles"`
	Time         time.Time `json:"time"` // the server's
	OpenSessions int64     `json:"open_sessions"`
	AuditRows    int64     `json:"audit_rows"`
}
