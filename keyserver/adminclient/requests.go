package adminclient

import (
	"context"
	"encoding/base64"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/sealboot/sealboot/internal/guid"
	"github.com/sealboot/sealboot/keyserver/wire"
)

func imagePath(name string) string { return "/v1/admin/images/" + url.PathEscape(name) }

func secretPath(image string, id guid.GUID) string {
	return imagePath(image) + "/secrets/" + id.String()
}

// Status says as whom the server knows the client, and how it stands.
func (c *Client) Status(ctx context.Context) (wire.Status, error) {
	return ask[wire.Status](ctx, c, http.MethodGet, "/v1/admin/status")
}

// Images lists the images by name.
func (c *Client) Images(ctx context.Context) ([]wire.Image, error) {
	m, err := ask[wire.Images](ctx, c, http.MethodGet, "/v1/admin/images")
	return m.Images, err
}

// Register registers an image.
func (c *Client) Register(ctx context.Context, r wire.Registration) (wire.Registered, error) {
	return send[wire.Registered](ctx, c, http.MethodPost, "/v1/admin/images", r)
}

// Replace makes an image's next version.
func (c *Client) Replace(ctx context.Context, image string, r wire.Replacement) (wire.Registered, error) {
	return send[wire.Registered](ctx, c, http.MethodPut, imagePath(image), r)
}

// Documents gives an image's record and policy.
func (c *Client) Documents(ctx context.Context, image string) (wire.Documents, error) {
	return ask[wire.Documents](ctx, c, http.MethodGet, imagePath(image))
}

// SetPolicy sets an image's policy, and gives its version.
func (c *Client) SetPolicy(ctx context.Context, image string, p wire.NewPolicy) (int64, error) {
	m, err := send[wire.PolicyVersion](ctx, c, http.MethodPut, imagePath(image)+"/policy", p)
	return m.Version, err
}

// TestPolicy asks what a policy would say.
func (c *Client) TestPolicy(ctx context.Context, image string, t wire.Trial) (wire.Verdict, error) {
	return send[wire.Verdict](ctx, c, http.MethodPost, imagePath(image)+"/policy/test", t)
}

// Policies lists the policies that an image has had, the newest last.
func (c *Client) Policies(ctx context.Context, image string) ([]wire.Policy, error) {
	m, err := ask[wire.Policies](ctx, c, http.MethodGet, imagePath(image)+"/policies")
	return m.Policies, err
}

// Policy gives one of them.
func (c *Client) Policy(ctx context.Context, image string, version int64) (wire.PolicyDocument, error) {
	return ask[wire.PolicyDocument](ctx, c, http.MethodGet, imagePath(image)+"/policies/"+strconv.FormatInt(version, 10))
}

// Secrets lists an image's secrets, without their values.
func (c *Client) Secrets(ctx context.Context, image string) ([]wire.Secret, error) {
	m, err := ask[wire.Secrets](ctx, c, http.MethodGet, imagePath(image)+"/secrets")
	return m.Secrets, err
}

// PutSecret gives an image one more secret, and its version.
func (c *Client) PutSecret(ctx context.Context, image string, id guid.GUID, data []byte) (int64, error) {
	m, err := send[wire.SecretVersion](ctx, c, http.MethodPut, secretPath(image, id), wire.SecretData{Data: data})
	return m.Version, err
}

// RotateSecret gives a secret its next version.
func (c *Client) RotateSecret(ctx context.Context, image string, id guid.GUID, data []byte) (int64, error) {
	m, err := send[wire.SecretVersion](ctx, c, http.MethodPost, secretPath(image, id)+"/rotation", wire.SecretData{Data: data})
	return m.Version, err
}

// ConfirmSecret ends a rotation: the version before is gone.
func (c *Client) ConfirmSecret(ctx context.Context, image string, id guid.GUID) error {
	_, err := send[wire.Nothing](ctx, c, http.MethodPost, secretPath(image, id)+"/rotation/confirmation", wire.Nothing{})
	return err
}

// RollBackSecret takes a rotation back.
func (c *Client) RollBackSecret(ctx context.Context, image string, id guid.GUID) (int64, error) {
	m, err := ask[wire.SecretVersion](ctx, c, http.MethodDelete, secretPath(image, id)+"/rotation")
	return m.Version, err
}

// Revocations lists what was taken out of use.
func (c *Client) Revocations(ctx context.Context) ([]wire.Revocation, error) {
	m, err := ask[wire.Revocations](ctx, c, http.MethodGet, "/v1/admin/revocations")
	return m.Revocations, err
}

// Revoke takes something out of use.
func (c *Client) Revoke(ctx context.Context, r wire.NewRevocation) error {
	_, err := send[wire.Revocation](ctx, c, http.MethodPost, "/v1/admin/revocations", r)
	return err
}

// Unrevoke takes that back.
func (c *Client) Unrevoke(ctx context.Context, kind, value string) error {
	_, err := ask[wire.Nothing](ctx, c, http.MethodDelete, "/v1/admin/revocations/"+url.PathEscape(kind)+"/"+url.PathEscape(value))
	return err
}

// RowsQuery chooses rows of the audit. What is not set chooses all.
type RowsQuery struct {
	After        int64
	Limit        int // at most wire.MaxRows; 0: as many
	Image, Event string
	Class        string // a class, granted, or refusals
	Since, Until time.Time
}

// Rows gives rows of the audit, and where to go on.
func (c *Client) Rows(ctx context.Context, q RowsQuery) (wire.Rows, error) {
	v := url.Values{}
	set := func(name, value string, is bool) {
		if is {
			v.Set(name, value)
		}
	}
	set("after", strconv.FormatInt(q.After, 10), q.After != 0)
	set("limit", strconv.Itoa(q.Limit), q.Limit != 0)
	set("image", q.Image, q.Image != "")
	set("event", q.Event, q.Event != "")
	set("class", q.Class, q.Class != "")
	set("since", q.Since.UTC().Format(time.RFC3339Nano), !q.Since.IsZero())
	set("until", q.Until.UTC().Format(time.RFC3339Nano), !q.Until.IsZero())
	path := "/v1/admin/audit"
	if len(v) > 0 {
		path += "?" + v.Encode()
	}
	return ask[wire.Rows](ctx, c, http.MethodGet, path)
}

// Export writes the audit in package auditlog's form, whole or behind a checkpoint. It is the caller who verifies it.
func (c *Client) Export(ctx context.Context, w io.Writer, after []byte) error {
	path := "/v1/admin/audit/export"
	if after != nil {
		path += "?after=" + base64.RawURLEncoding.EncodeToString(after)
	}
	return c.stream(ctx, path, w)
}

// Checkpoint gives a signed checkpoint of the audit as it stands.
func (c *Client) Checkpoint(ctx context.Context) ([]byte, error) {
	m, err := send[wire.Checkpoint](ctx, c, http.MethodPost, "/v1/admin/audit/checkpoint", wire.Nothing{})
	return m.Note, err
}

// LastCheckpoint gives the newest that there is.
func (c *Client) LastCheckpoint(ctx context.Context) ([]byte, error) {
	m, err := ask[wire.Checkpoint](ctx, c, http.MethodGet, "/v1/admin/audit/checkpoint")
	return m.Note, err
}

// AuditKey gives the public key of checkpoints and exports, as this server says it.
func (c *Client) AuditKey(ctx context.Context) (string, error) {
	m, err := ask[wire.AuditKey](ctx, c, http.MethodGet, "/v1/admin/audit/key")
	return m.Key, err
}

// Principals lists those whom the server knows, by name.
func (c *Client) Principals(ctx context.Context) ([]wire.Principal, error) {
	m, err := ask[wire.Principals](ctx, c, http.MethodGet, "/v1/admin/principals")
	return m.Principals, err
}

// AddPrincipal makes somebody known by a digest of the credential (access.NewTokenPrincipal, access.NewCertificatePrincipal).
func (c *Client) AddPrincipal(ctx context.Context, n wire.NewPrincipal) (wire.Principal, error) {
	return send[wire.Principal](ctx, c, http.MethodPost, "/v1/admin/principals", n)
}

// RemovePrincipal takes a principal away, at once.
func (c *Client) RemovePrincipal(ctx context.Context, name string) error {
	_, err := ask[wire.Nothing](ctx, c, http.MethodDelete, "/v1/admin/principals/"+url.PathEscape(name))
	return err
}

// Backup writes a backup of the whole store, encrypted under the store key.
func (c *Client) Backup(ctx context.Context, w io.Writer) error {
	return c.stream(ctx, "/v1/admin/backup", w)
}
