package admin

import (
	"github.com/sealboot/sealboot/keyserver/access"
	"github.com/sealboot/sealboot/keyserver/wire"
)

func (h *Handler) principals(c *call) (wire.Principals, error) {
	list, err := h.Principals.List(c)
	if err != nil {
		return wire.Principals{}, err
	}
	var m wire.Principals
	for _, p := range list {
		m.Principals = append(m.Principals, told(p))
	}
	return m, nil
}

func told(p access.Principal) wire.Principal {
	return wire.Principal{Name: p.Name, Kind: string(p.Kind), Digest: p.Digest.String(), Roles: p.Roles.String(), Created: p.Created, Expires: p.Expires}
}

func (h *Handler) addPrincipal(c *call, q wire.NewPrincipal) (wire.Principal, error) {
	roles, err := access.ParseRoles(q.Roles)
	if err != nil {
		return wire.Principal{}, err
	}
	digest, err := access.ParseDigest(q.Digest)
	if err != nil {
		return wire.Principal{}, unacceptable(err)
	}
	p := access.Principal{Name: q.Name, Kind: access.Kind(q.Kind), Digest: digest, Roles: roles, Created: c.now, Expires: q.Expires}
	if err := p.Validate(); err != nil {
		return wire.Principal{}, err
	}
	if err := h.Principals.Add(c, p); err != nil {
		return wire.Principal{}, err
	}
	return told(p), nil
}

func (h *Handler) removePrincipal(c *call) (wire.Nothing, error) {
	name := c.r.PathValue("name")
	if !wire.ValidImage(name) {
		return wire.Nothing{}, access.ErrNoPrincipal
	}
	return wire.Nothing{}, h.Principals.Remove(c, name)
}
