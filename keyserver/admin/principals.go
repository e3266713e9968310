package admin

import (
	"crypto/x509"
	"errors"
	"fmt"
	"time"

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

func (h *Handler) addToken(c *call, q wire.NewToken) (wire.Token, error) {
	roles, err := access.ParseRoles(q.Roles)
	if err != nil {
		return wire.Token{}, err
	}
	if q.Seconds < 1 || q.Seconds > int64(access.MaxTokenLife/time.Second) {
		return wire.Token{}, unacceptable(fmt.Errorf("a token lives for 1 to %d seconds", int64(access.MaxTokenLife/time.Second)))
	}
	p, text, err := access.NewTokenPrincipal(q.Name, roles, time.Duration(q.Seconds)*time.Second, h.Random, c.now)
	if err != nil {
		return wire.Token{}, err
	}
	defer clear(text)
	if err := h.Principals.Add(c, p); err != nil {
		return wire.Token{}, err
	}
	return wire.Token{Name: p.Name, Expires: p.Expires, Token: string(text)}, nil
}

func (h *Handler) addCertificate(c *call, q wire.NewCertificate) (wire.Principal, error) {
	roles, err := access.ParseRoles(q.Roles)
	if err != nil {
		return wire.Principal{}, err
	}
	certificate, err := x509.ParseCertificate(q.Certificate)
	if err != nil {
		return wire.Principal{}, unacceptable(errors.New("certificate does not read: it must be one, in DER"))
	}
	p, err := access.NewCertificatePrincipal(q.Name, roles, certificate, c.now)
	if err != nil {
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
