package admin

import (
	"errors"
	"fmt"

	"github.com/sealboot/sealboot/internal/guid"
	"github.com/sealboot/sealboot/keyserver"
	"github.com/sealboot/sealboot/keyserver/wire"
)

// secretName gives the image and the secret in the path.
func (c *call) secretName() (string, guid.GUID, error) {
	name, err := c.imageName()
	if err != nil {
		return "", guid.GUID{}, err
	}
	text := c.r.PathValue("secret")
	id, err := guid.Parse(text)
	if err != nil || id.String() != text {
		return "", guid.GUID{}, &refusal{wire.NothingThere, keyserver.ErrNoSuchSecret}
	}
	return name, id, nil
}

func (h *Handler) secrets(c *call) (wire.Secrets, error) {
	name, err := c.imageName()
	if err != nil {
		return wire.Secrets{}, err
	}
	list, err := h.Store.ListSecrets(c, name)
	if err != nil {
		return wire.Secrets{}, err
	}
	var m wire.Secrets
	for _, s := range list {
		m.Secrets = append(m.Secrets, wire.Secret{Secret: s.ID, Version: s.Version, Made: s.Made, Bytes: int64(s.Bytes), Previous: s.Previous, State: state(s.Revoked)})
	}
	return m, nil
}

func (h *Handler) putSecret(c *call, q wire.SecretData) (wire.SecretVersion, error) {
	defer clear(q.Data)
	name, id, err := c.secretName()
	if err != nil {
		return wire.SecretVersion{}, err
	}
	version, err := h.Store.PutSecret(c, name, id, q.Data, c.now)
	return wire.SecretVersion{Secret: id, Version: version}, err
}

func (h *Handler) rotate(c *call, q wire.SecretData) (wire.SecretVersion, error) {
	defer clear(q.Data)
	name, id, err := c.secretName()
	if err != nil {
		return wire.SecretVersion{}, err
	}
	version, err := h.Store.RotateSecret(c, name, id, q.Data, c.now)
	return wire.SecretVersion{Secret: id, Version: version}, err
}

func (h *Handler) confirm(c *call, _ wire.Nothing) (wire.Nothing, error) {
	name, id, err := c.secretName()
	if err != nil {
		return wire.Nothing{}, err
	}
	return wire.Nothing{}, h.Store.ConfirmSecret(c, name, id, c.now)
}

func (h *Handler) rollBack(c *call) (wire.SecretVersion, error) {
	name, id, err := c.secretName()
	if err != nil {
		return wire.SecretVersion{}, err
	}
	version, err := h.Store.RollBackSecret(c, name, id, c.now)
	return wire.SecretVersion{Secret: id, Version: version}, err
}

func (h *Handler) revocations(c *call) (wire.Revocations, error) {
	list, err := h.Store.Revocations(c)
	if err != nil {
		return wire.Revocations{}, err
	}
	var m wire.Revocations
	for _, r := range list {
		m.Revocations = append(m.Revocations, wire.Revocation{Kind: string(r.Kind), Value: r.Value, Reason: r.Reason, Time: r.Time})
	}
	return m, nil
}

func (h *Handler) revoke(c *call, q wire.NewRevocation) (wire.Revocation, error) {
	r := keyserver.Revocation{Kind: keyserver.RevocationKind(q.Kind), Value: q.Value, Reason: q.Reason, Time: c.now}
	if err := h.Store.Revoke(c, r); err != nil {
		return wire.Revocation{}, err
	}
	return wire.Revocation{Kind: q.Kind, Value: q.Value, Reason: q.Reason, Time: c.now}, nil
}

func (h *Handler) unrevoke(c *call) (wire.Nothing, error) {
	kind, value := keyserver.RevocationKind(c.r.PathValue("kind")), c.r.PathValue("value")
	if err := (keyserver.Revocation{Kind: kind, Value: value, Reason: "-"}).Validate(); err != nil {
		return wire.Nothing{}, &refusal{wire.NothingThere, fmt.Errorf("%w: %w", keyserver.ErrNotRevoked, errors.Unwrap(err))}
	}
	return wire.Nothing{}, h.Store.Unrevoke(c, kind, value, c.now)
}
