package admin

import (
	"bytes"
	"fmt"

	"github.com/sealboot/sealboot/keyserver"
	"github.com/sealboot/sealboot/keyserver/wire"
	"github.com/sealboot/sealboot/measure"
)

// states are wire's words.
func state(revoked bool) string {
	if revoked {
		return "revoked"
	}
	return "valid"
}

// imageName gives the image in the path. What can be no name is no image's.
func (c *call) imageName() (string, error) {
	name := c.r.PathValue("image")
	if !wire.ValidImage(name) {
		return "", &refusal{wire.NothingThere, keyserver.ErrNoImage}
	}
	return name, nil
}

func (h *Handler) images(c *call) (wire.Images, error) {
	list, err := h.Store.Images(c)
	if err != nil {
		return wire.Images{}, err
	}
	var m wire.Images
	for _, i := range list {
		m.Images = append(m.Images, wire.Image{Image: i.Name, Version: i.Version, Registered: i.Registered, State: state(i.Revoked), Mode: string(i.Mode),
			GuestPolicy: i.Policy, PolicyVersion: i.PolicyVersion, Digests: i.Digests, Disk: i.DiskUUID, Released: i.Released})
	}
	return m, nil
}

func (h *Handler) documents(c *call) (wire.Documents, error) {
	name, err := c.imageName()
	if err != nil {
		return wire.Documents{}, err
	}
	d, err := h.Store.Documents(c, name)
	if err != nil {
		return wire.Documents{}, err
	}
	return wire.Documents{Image: name, Version: d.Version, PolicyVersion: d.PolicyVersion, State: state(d.Revoked), Record: d.Record, Policy: d.Policy}, nil
}

func (h *Handler) register(c *call, q wire.Registration) (wire.Registered, error) {
	return h.take(c, keyserver.Registration{Name: q.Image, Passphrase: q.Passphrase}, q.Record, q.Policy, q.Secrets)
}

func (h *Handler) replace(c *call, q wire.Replacement) (wire.Registered, error) {
	name, err := c.imageName()
	if err != nil {
		return wire.Registered{}, err
	}
	if _, err := h.Store.Documents(c, name); err != nil { // a replacement never makes an image
		return wire.Registered{}, err
	}
	return h.take(c, keyserver.Registration{Name: name, Passphrase: q.Passphrase, Replace: true, Replaces: q.Replaces}, q.Record, q.Policy, q.Secrets)
}

// take registers what was given, and wipes its secrets.
func (h *Handler) take(c *call, r keyserver.Registration, record, policy []byte, secrets []wire.Given) (wire.Registered, error) {
	defer clear(r.Passphrase)
	for _, s := range secrets {
		defer clear(s.Data)
		r.Secrets = append(r.Secrets, keyserver.Secret{ID: s.Secret, Data: s.Data})
	}
	var err error
	if r.Record, err = measure.ReadRecord(bytes.NewReader(record)); err != nil {
		return wire.Registered{}, unacceptable(err)
	}
	if r.Policy, err = keyserver.ReadPolicy(bytes.NewReader(policy)); err != nil {
		return wire.Registered{}, unacceptable(err)
	}
	if err := r.Validate(); err != nil {
		return wire.Registered{}, unacceptable(err)
	}
	version, err := h.Store.Register(c, r, c.now)
	if err != nil {
		return wire.Registered{}, err
	}
	return wire.Registered{Image: r.Name, Version: version}, nil
}

func (h *Handler) status(c *call) (wire.Status, error) {
	open, err := h.Store.OpenSessions(c)
	if err != nil {
		return wire.Status{}, err
	}
	rows, err := h.Store.AuditSize(c)
	if err != nil {
		return wire.Status{}, fmt.Errorf("read audit: %w", err)
	}
	return wire.Status{Principal: c.who.Name, Roles: c.who.Roles.String(), Time: c.now, OpenSessions: open, AuditRows: rows}, nil
}
