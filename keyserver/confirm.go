package keyserver

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/sealboot/sealboot/keyserver/wire"
)

// receiptSize is a release receipt's: session id 16 | key 32.
const receiptSize = 16 + sha256.Size

// receipt makes what a release gives the guest to confirm with. Nothing of it is stored: the key follows from the session and from
// the serial of the image's secrets, so that it confirms the versions that were released and no later ones. The caller wipes it.
func (k *Key) receipt(s *session, serial uint64) []byte {
	id, err := hex.DecodeString(s.id)
	if err != nil || len(id) != 16 {
		id = make([]byte, 16) // a row that is not ours: its receipt is nobody's
	}
	h := hmac.New(sha256.New, k.receipts)
	h.Write(joined([][]byte{id, []byte(s.image), number(s.version), number(int64(serial))}))
	return h.Sum(append(make([]byte, 0, receiptSize), id...))
}

// Confirm ends a secret's rotation: a guest that got the new version in this session has used it. Whatever is wrong with
// a confirmation is the same *Refusal. One that comes again, or after the owner ended the rotation, changes nothing.
func (s *Server) Confirm(ctx context.Context, from Source, id string, r wire.ConfirmationRequest) error {
	for range maxTries {
		err := s.confirm(ctx, from, id, r)
		if !errors.Is(err, errStale) {
			return err
		}
	}
	return fmt.Errorf("confirm: %w: %w", ErrBusy, errStale)
}

func (s *Server) confirm(ctx context.Context, from Source, id string, r wire.ConfirmationRequest) error {
	entry := Entry{Time: s.now(), Event: EventConfirm, Session: id, Request: from.Request, Source: from.Address, Target: r.Secret.String()}
	unknown := refusef(wire.Refused, "no such session")
	if !wire.ValidSessionID(id) {
		return unknown
	}
	kept, err := readSession(ctx, s.store.read, id)
	if errors.Is(err, errNoSession) {
		kept = &session{id: id} // and the same steps
	} else if err != nil {
		return fmt.Errorf("confirm: %w", err)
	}
	f, err := s.store.find(ctx, kept.image)
	if err != nil {
		return fmt.Errorf("confirm: %w", err)
	}
	about := f
	if about.image == nil {
		about = s.decoy
	}
	entry.Image, entry.Version, entry.PolicyVersion = kept.image, about.image.version, about.image.policyVersion
	pending, cause := s.mayConfirm(kept, about, r)
	switch {
	case kept.created.IsZero(): // not for the audit: anybody can make up ids
		return unknown
	case cause != nil:
		entry.refuse(&Refusal{Class: wire.Refused, Cause: cause})
		if err := s.store.write(ctx, func(t *transaction) error { return t.audit(entry) }); err != nil {
			return fmt.Errorf("confirm: %w", err)
		}
		return &Refusal{Class: wire.Refused, Cause: cause}
	case !pending:
		return nil
	}
	entry.Reason = "used by the guest"
	err = s.store.write(ctx, func(t *transaction) error {
		var generation int64
		if err := t.row(`SELECT n FROM generation`).Scan(&generation); err != nil {
			return err
		}
		if generation != f.generation {
			return errStale
		}
		e, err := t.changeSecret(kept.image, r.Secret, entry, confirm)
		if err != nil {
			return err
		}
		return t.audit(e)
	})
	if err != nil {
		return fmt.Errorf("confirm: %w", err)
	}
	return nil
}

// mayConfirm says whether the confirmation holds, and whether it ends anything.
func (s *Server) mayConfirm(kept *session, about *found, r wire.ConfirmationRequest) (pending bool, err error) {
	var serial uint64
	var have *secret
	_, secrets, secretsErr := about.open(s.store.key)
	if secretsErr == nil {
		defer secrets.wipe()
		serial, have = secrets.serial, secrets.find(r.Secret)
	}
	receipt := s.store.key.receipt(kept, serial)
	defer clear(receipt)
	fits := hmac.Equal(r.MAC, wire.ConfirmationMAC(receipt[16:], r.Secret))
	switch {
	case secretsErr != nil:
		return false, secretsErr
	case kept.state != released:
		return false, errors.New("session has released nothing")
	case kept.version != about.image.version:
		return false, errors.New("session is of another version of the image")
	case !fits:
		return false, errors.New("receipt is not this session's, or the secrets were changed after it")
	case have == nil || have.current.data == nil:
		return false, ErrNoSuchSecret
	}
	return have.rotating(), nil
}
