package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sealboot/sealboot/internal/guid"
	"github.com/sealboot/sealboot/keyserver"
	"github.com/sealboot/sealboot/keyserver/access"
	"github.com/sealboot/sealboot/keyserver/adminclient"
	"github.com/sealboot/sealboot/keyserver/wire"
	"github.com/sealboot/sealboot/measure"
)

// remoteKeeper is a keeper behind a server. Times are the server's, whatever is given.
type remoteKeeper struct{ *adminclient.Client }

func (k remoteKeeper) Close() error { return nil }

func (k remoteKeeper) Register(ctx context.Context, r keyserver.Registration, _ time.Time) (int64, error) {
	record, err := r.Record.Encode()
	if err != nil {
		return 0, err
	}
	policy, err := r.Policy.Encode()
	if err != nil {
		return 0, err
	}
	secrets := []wire.Given{}
	for _, s := range r.Secrets {
		secrets = append(secrets, wire.Given{Secret: s.ID, Data: s.Data})
	}
	if r.Replace {
		made, err := k.Replace(ctx, r.Name, wire.Replacement{Replaces: r.Replaces, Record: record, Policy: policy, Passphrase: r.Passphrase, Secrets: secrets})
		refused := (*adminclient.Refused)(nil)
		if !errors.As(err, &refused) || refused.Class != wire.NothingThere || len(r.Passphrase) == 0 {
			return made.Version, err
		}
		// The name is free: then this is the image's first version, as for a store.
	}
	made, err := k.Client.Register(ctx, wire.Registration{Image: r.Name, Record: record, Policy: policy, Passphrase: r.Passphrase, Secrets: secrets})
	return made.Version, err
}

func (k remoteKeeper) Images(ctx context.Context) ([]keyserver.Image, error) {
	list, err := k.Client.Images(ctx)
	if err != nil {
		return nil, err
	}
	images := []keyserver.Image{}
	for _, m := range list {
		images = append(images, keyserver.Image{Name: m.Image, Version: m.Version, Registered: m.Registered, Revoked: m.State == "revoked", Mode: measure.Mode(m.Mode),
			Policy: m.GuestPolicy, PolicyVersion: m.PolicyVersion, Digests: m.Digests, DiskUUID: m.Disk, Released: m.Released})
	}
	return images, nil
}

func (k remoteKeeper) SetPolicy(ctx context.Context, image string, p keyserver.Policy, _ time.Time) (int64, error) {
	text, err := p.Encode()
	if err != nil {
		return 0, err
	}
	return k.Client.SetPolicy(ctx, image, wire.NewPolicy{Policy: text})
}

func (k remoteKeeper) Policies(ctx context.Context, image string) ([]keyserver.PolicyVersion, error) {
	list, err := k.Client.Policies(ctx, image)
	if err != nil {
		return nil, err
	}
	versions := []keyserver.PolicyVersion{}
	for _, one := range list {
		d, err := k.policy(ctx, image, one.Version)
		if err != nil {
			return nil, err
		}
		p, err := keyserver.ReadPolicy(bytes.NewReader(d.Policy))
		if err != nil {
			return nil, fmt.Errorf("policy of version %d: %w", one.Version, err)
		}
		versions = append(versions, keyserver.PolicyVersion{Version: d.Version, ImageVersion: d.ImageVersion, Set: d.Set, Policy: p, Document: d.Policy})
	}
	return versions, nil
}

// policy reads one policy. An image may have had so many that the server bids to wait.
func (k remoteKeeper) policy(ctx context.Context, image string, version int64) (wire.PolicyDocument, error) {
	for {
		d, err := k.Policy(ctx, image, version)
		if refused := (*adminclient.Refused)(nil); !errors.As(err, &refused) || refused.Class != wire.TooManyRequests {
			return d, err
		}
		select {
		case <-ctx.Done():
			return d, ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

func (k remoteKeeper) PutSecret(ctx context.Context, image string, id guid.GUID, data []byte, _ time.Time) (int64, error) {
	return k.Client.PutSecret(ctx, image, id, data)
}

func (k remoteKeeper) RotateSecret(ctx context.Context, image string, id guid.GUID, data []byte, _ time.Time) (int64, error) {
	return k.Client.RotateSecret(ctx, image, id, data)
}

func (k remoteKeeper) ConfirmSecret(ctx context.Context, image string, id guid.GUID, _ time.Time) error {
	return k.Client.ConfirmSecret(ctx, image, id)
}

func (k remoteKeeper) RollBackSecret(ctx context.Context, image string, id guid.GUID, _ time.Time) (int64, error) {
	return k.Client.RollBackSecret(ctx, image, id)
}

func (k remoteKeeper) ListSecrets(ctx context.Context, image string) ([]keyserver.SecretInfo, error) {
	list, err := k.Secrets(ctx, image)
	if err != nil {
		return nil, err
	}
	secrets := []keyserver.SecretInfo{}
	for _, s := range list {
		info := keyserver.SecretInfo{ID: s.Secret, Version: s.Version, Made: s.Made, Bytes: int(s.Bytes), Previous: s.Previous, Revoked: s.State == "revoked"}
		if info.Previous != 0 {
			info.Since = &s.Made
		}
		secrets = append(secrets, info)
	}
	return secrets, nil
}

func (k remoteKeeper) Revoke(ctx context.Context, r keyserver.Revocation) error {
	return k.Client.Revoke(ctx, wire.NewRevocation{Kind: string(r.Kind), Value: r.Value, Reason: r.Reason})
}

func (k remoteKeeper) Unrevoke(ctx context.Context, kind keyserver.RevocationKind, value string, _ time.Time) error {
	return k.Client.Unrevoke(ctx, string(kind), value)
}

func (k remoteKeeper) Revocations(ctx context.Context) ([]keyserver.Revocation, error) {
	list, err := k.Client.Revocations(ctx)
	if err != nil {
		return nil, err
	}
	revoked := []keyserver.Revocation{}
	for _, r := range list {
		revoked = append(revoked, keyserver.Revocation{Kind: keyserver.RevocationKind(r.Kind), Value: r.Value, Reason: r.Reason, Time: r.Time})
	}
	return revoked, nil
}

func (k remoteKeeper) Principals(func() time.Time) access.Principals { return remotePrincipals(k) }

// remotePrincipals are those whom a server knows.
type remotePrincipals struct{ *adminclient.Client }

func (k remotePrincipals) List(ctx context.Context) ([]access.Principal, error) {
	list, err := k.Principals(ctx)
	if err != nil {
		return nil, err
	}
	principals := []access.Principal{}
	for _, p := range list {
		digest, err := access.ParseDigest(p.Digest)
		if err != nil {
			return nil, err
		}
		roles, err := access.ParseRoles(p.Roles)
		if err != nil {
			return nil, err
		}
		principals = append(principals, access.Principal{Name: p.Name, Kind: access.Kind(p.Kind), Digest: digest, Roles: roles, Created: p.Created, Expires: p.Expires})
	}
	return principals, nil
}

func (k remotePrincipals) Add(ctx context.Context, p access.Principal) error {
	_, err := k.AddPrincipal(ctx, wire.NewPrincipal{Name: p.Name, Kind: string(p.Kind), Digest: p.Digest.String(), Roles: p.Roles.String(), Expires: p.Expires})
	return err
}

func (k remotePrincipals) Remove(ctx context.Context, name string) error {
	return k.RemovePrincipal(ctx, name)
}

// Lookup is for servers alone: over the network nobody asks by a credential's digest.
func (k remotePrincipals) Lookup(context.Context, access.Kind, access.Digest) (access.Principal, error) {
	return access.Principal{}, errors.New("principals of a server are not looked up over the network")
}
