package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"tiwkeyd/internal/config"
	"tiwkeyd/internal/private"
	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
	"tiwkeyd/secrets/vault"
	"tiwkeyd/webhook"
)

// evidence is where `verify` looks for the key that signed a callback.
type evidence struct {
	place string
	now   func(context.Context, secrets.Target) (content []byte, version int64, err error)

	// older gives an earlier version of the keyring, nil content if it is no more; it is nil
	// where nothing earlier is kept.
	older func(context.Context, secrets.Target, int64) (content []byte, written time.Time, err error)
}

// olderVersions is how many versions of a keyring are looked at, from the newest back.
const olderVersions = 30

// evidence opens the store or the key file.
func (f *verifyFlags) evidence(c *config.Config, log *slog.Logger) (e evidence, closeStore func(), err error) {
	switch {
	case f.keyFile != "":
		return fileEvidence("file "+f.keyFile, false, func(secrets.Target) string { return f.keyFile }), func() {}, nil
	case c.FileStore != "":
		return fileEvidence("file store "+c.FileStore, true, func(t secrets.Target) string {
			return filepath.Join(c.FileStore, strconv.FormatInt(t.SdkAppID, 10), string(t.Service)+".json")
		}), func() {}, nil
	}
	v, err := vault.New(vault.Options{Mount: c.VaultMount, Prefix: c.VaultPrefix, Login: c.Login, Log: log})
	if err != nil {
		return e, nil, &exitError{code: exitUsage, err: err}
	}
	return evidence{
		place: v.String(),
		now: func(ctx context.Context, t secrets.Target) ([]byte, int64, error) {
			s, err := v.Secret(ctx, t, 0)
			return s.Content, s.Number, err
		},
		older: func(ctx context.Context, t secrets.Target, n int64) ([]byte, time.Time, error) {
			s, err := v.Secret(ctx, t, n)
			return s.Content, s.Written, err
		},
	}, v.Close, nil
}

// fileEvidence reads files, of which in a store any may be missing.
func fileEvidence(place string, store bool, path func(secrets.Target) string) evidence {
	return evidence{place: place, now: func(_ context.Context, t secrets.Target) ([]byte, int64, error) {
		content, err := private.ReadFile(path(t), maxAnswer)
		if store && errors.Is(err, os.ErrNotExist) {
			return nil, 0, nil
		}
		if err != nil {
			return nil, 0, fmt.Errorf("read the keys: %w", err)
		}
		var envelope struct {
			Keyring json.RawMessage `json:"keyring"`
		}
		if json.Unmarshal(content, &envelope) == nil && envelope.Keyring != nil {
			content = envelope.Keyring
		}
		return content, 0, nil
	}}
}

// judge finds who signed the callback, and says what follows. A keyring that cannot be read
// matters only if no other one explains the callback.
func (e *evidence) judge(ctx context.Context, v *verdict, c *webhook.Callback, now time.Time, targets []secrets.Target) error {
	var held []string
	var unread []error
	current := map[secrets.Target]webhook.Keys{}
	for _, t := range targets {
		content, version, err := e.now(ctx, t)
		if err == nil && content == nil {
			continue
		}
		var keys webhook.Keys
		if err == nil {
			if keys, err = webhook.ParseKeys(t, content); err != nil {
				err = fmt.Errorf("%s: %w", e.place, err)
			}
		}
		if err != nil {
			unread = append(unread, err)
			continue
		}
		keys.Version = version
		current[t] = keys
		for _, k := range keys.Accept {
			if k.Short() {
				slog.Warn(webhook.ShortKey, "target", targetName(named(t, content)), "from", e.place, "key", k.String())
			}
			if !keys.WasRevoked(k) {
				held = append(held, k.ID())
			}
		}
		if id := signer(c, keys); id != "" {
			e.signed(v, c, now, named(t, content), id, content)
			return nil
		}
		if !c.Signed && keys.AcceptUnsigned {
			v.say("%s has no key yet, so that its genuine callbacks are unsigned; so may be anybody's.", targetName(named(t, content)))
		}
	}
	if len(unread) > 0 {
		return errors.Join(unread...)
	}
	v.lateness(c, now)
	switch {
	case len(current) == 0:
		v.Reason = string(webhook.WrongApplication)
		v.say("There is no keyring of SdkAppId %d at %s.", c.SdkAppID, e.place)
		return nil
	case !c.Signed:
		v.Reason = string(webhook.Unsigned)
		v.say("It has no Sign.")
		return nil
	}
	v.Reason = string(webhook.BadSignature)
	v.say("None of the keys accepted now explains its Sign: %v.", held)
	return e.lookBack(ctx, v, c, current)
}

// named is a target with the service that the keyring itself tells.
func named(t secrets.Target, content []byte) secrets.Target {
	var keyring struct{ Service secrets.Service }
	if t.Service == "" && json.Unmarshal(content, &keyring) == nil {
		t.Service = keyring.Service
	}
	return t
}

// targetName names a target that may be of whatever service.
func targetName(t secrets.Target) string {
	if t.Service == "" {
		return strconv.FormatInt(t.SdkAppID, 10)
	}
	return t.String()
}

// signer is the id of the key that signed a callback, whether or not it has expired.
func signer(c *webhook.Callback, keys webhook.Keys) string {
	id, _ := c.Verify(keys, time.Unix(c.ExpireTime, 0))
	return id
}

// signed says what a callback signed with an accepted key is.
func (e *evidence) signed(v *verdict, c *webhook.Callback, now time.Time, t secrets.Target, id string, content []byte) {
	v.KeyID, v.Target = id, targetName(t)
	about := ""
	if k, err := rotator.DecodeKeyring(t, content); err == nil {
		for _, entry := range k.Keys {
			if entry.Key.ID() == id {
				v.KeyState = string(entry.State)
				about = ", the " + v.KeyState + " one"
				if entry.State == rotator.Previous && !entry.AcceptUntil.IsZero() {
					about += ", accepted until " + entry.AcceptUntil.UTC().Format(time.RFC3339)
				}
			}
		}
	}
	v.say("It was signed with key %s of %s%s.", id, v.Target, about)
	v.Genuine = !v.lateness(c, now)
	if !v.Genuine {
		v.Reason = string(webhook.Expired)
	}
}

// distant is how far off no duration is told.
const distant = 100 * 365 * 24 * 60 * 60

// lateness tells when the callback expires, and reports whether it has.
func (v *verdict) lateness(c *webhook.Callback, now time.Time) (late bool) {
	if !c.Signed && c.ExpireTime == 0 {
		v.say("It has no ExpireTime.")
		return false
	}
	by := max(0, now.Unix()) - c.ExpireTime
	switch length := time.Duration(by) * time.Second; {
	case by < -distant || v.ExpireTime == nil:
		v.say("It expires in the distant future.")
	case by > distant:
		v.say("It expired more than a century ago. If that cannot be, check this machine's clock.")
	case by > 0:
		v.say("It expired %s ago, at %s. If that cannot be, check this machine's clock.", length, v.ExpireTime.Format(time.RFC3339))
	default:
		v.say("It expires in %s, at %s.", -length, v.ExpireTime.Format(time.RFC3339))
	}
	return by > 0
}

// lookBack searches the versions of the keyrings that the store still has.
func (e *evidence) lookBack(ctx context.Context, v *verdict, c *webhook.Callback, newest map[secrets.Target]webhook.Keys) error {
	if e.older == nil {
		v.say("Either it was signed with a key that was retired, which this place does not keep, or the key has never been ours.")
		return nil
	}
	missing, skipped := false, false
	for _, t := range slices.SortedFunc(maps.Keys(newest), secrets.Target.Compare) {
		current := newest[t].Version
		var next time.Time // when the version after the one looked at was written
		when := "at"
		for n := current; n > max(0, current-olderVersions); n-- {
			content, written, err := e.older(ctx, t, n)
			if err != nil {
				return err
			}
			if content == nil {
				missing, when = true, "at the latest at"
				continue
			}
			if keys, err := webhook.ParseKeys(t, content); err == nil && n < current {
				if id := signer(c, keys); id != "" {
					v.KeyID, v.Target, v.KeyState = id, t.String(), "retired"
					if slices.ContainsFunc(keys.Accept, func(k webhook.Key) bool { return k.ID() == id && newest[t].WasRevoked(k) }) {
						v.KeyState = "revoked"
					}
					v.say("It was signed with key %s of %s, which was %s %s %s.", id, t, v.KeyState, when, next.UTC().Format(time.RFC3339))
					return nil
				}
			}
			next, when = written, "at"
		}
		skipped = skipped || current > olderVersions
	}
	switch {
	case missing:
		v.say("Earlier versions of the keyring are destroyed: either it was signed with a key that was retired, or the key has never been ours.")
	case skipped:
		v.say("None of the last %d versions of the keyring has the key: either it was retired before them, or it has never been ours.", olderVersions)
	default:
		v.say("The key has never been ours: no version of the keyring has it.")
	}
	return nil
}
