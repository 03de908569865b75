package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"tiwkeyd/internal/config"
	"tiwkeyd/rotator"
	"tiwkeyd/secrets/vault"
	"tiwkeyd/webhook"
)

// evidence is where `verify` looks for the key that signed a callback.
type evidence struct {
	place string
	now   func(context.Context, rotator.Target) (content []byte, version int64, err error)

	// older gives an earlier version of the keyring, nil content if it is no more; it is nil
	// where nothing earlier is kept.
	older func(context.Context, rotator.Target, int64) (content []byte, written time.Time, err error)
}

// olderVersions is how many versions of a keyring are looked at, from the newest back.
const olderVersions = 30

// evidence opens the store or the key file.
func (f *verifyFlags) evidence(c *config.Config, log *slog.Logger) (e evidence, closeStore func(), err error) {
	switch {
	case f.keyFile != "":
		return fileEvidence("file "+f.keyFile, func(rotator.Target) string { return f.keyFile }), func() {}, nil
	case c.FileStore != "":
		return fileEvidence("file store "+c.FileStore, func(t rotator.Target) string {
			return filepath.Join(c.FileStore, strconv.FormatInt(t.SdkAppID, 10), string(t.Service)+".json")
		}), func() {}, nil
	}
	v, err := vault.New(vault.Options{Mount: c.VaultMount, Prefix: c.VaultPrefix, Login: c.Login, Log: log})
	if err != nil {
		return e, nil, &exitError{code: exitUsage, err: err}
	}
	return evidence{
		place: v.String(),
		now: func(ctx context.Context, t rotator.Target) ([]byte, int64, error) {
			s, err := v.Secret(ctx, t, 0)
			return s.Content, s.Number, err
		},
		older: func(ctx context.Context, t rotator.Target, n int64) ([]byte, time.Time, error) {
			s, err := v.Secret(ctx, t, n)
			return s.Content, s.Written, err
		},
	}, v.Close, nil
}

func fileEvidence(place string, path func(rotator.Target) string) evidence {
	return evidence{place: place, now: func(_ context.Context, t rotator.Target) ([]byte, int64, error) {
		content, err := os.ReadFile(path(t))
		if errors.Is(err, os.ErrNotExist) && t.Service != "" {
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

// judge finds who signed the callback, and says what follows.
func (e *evidence) judge(ctx context.Context, v *verdict, c *webhook.Callback, now time.Time, targets []rotator.Target) error {
	var held []string
	versions := map[rotator.Target]int64{}
	for _, t := range targets {
		content, version, err := e.now(ctx, t)
		if err != nil {
			return err
		}
		if content == nil {
			continue
		}
		keys, err := webhook.ParseKeys(t, content)
		if err != nil {
			return fmt.Errorf("%s: %w", e.place, err)
		}
		versions[t] = version
		for _, k := range keys.Accept {
			held = append(held, k.ID())
		}
		if id := signer(c, keys); id != "" {
			e.signed(v, c, now, t, id, content)
			return nil
		}
		if !c.Signed && keys.AcceptUnsigned {
			v.say("%s has no key yet, so that its genuine callbacks are unsigned; so may be anybody's.", t)
		}
	}
	v.lateness(c, now)
	switch {
	case len(versions) == 0:
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
	return e.lookBack(ctx, v, c, versions)
}

// signer is the id of the key that signed a callback, whether or not it has expired.
func signer(c *webhook.Callback, keys webhook.Keys) string {
	id, _ := c.Verify(keys, time.Unix(c.ExpireTime, 0))
	return id
}

// signed says what a callback signed with an accepted key is.
func (e *evidence) signed(v *verdict, c *webhook.Callback, now time.Time, t rotator.Target, id string, content []byte) {
	v.KeyID, v.Target = id, t.String()
	about := ""
	if k, err := rotator.DecodeKeyring(t, content); err == nil {
		for _, entry := range k.Keys {
			if entry.Key.ID() == id {
				v.KeyState = string(entry.State)
				about = ", the " + v.KeyState + " one"
				if entry.State == rotator.Previous {
					about += ", accepted until " + entry.AcceptUntil.UTC().Format(time.RFC3339)
				}
			}
		}
	}
	if t.Service == "" {
		v.Target = strconv.FormatInt(t.SdkAppID, 10)
	}
	v.say("It was signed with key %s of %s%s.", id, v.Target, about)
	v.Genuine = !v.lateness(c, now)
	if !v.Genuine {
		v.Reason = string(webhook.Expired)
	}
}

// lateness tells when the callback expires, and reports whether it has.
func (v *verdict) lateness(c *webhook.Callback, now time.Time) (late bool) {
	if v.ExpireTime == nil {
		v.say("It expires in the distant future.")
		return false
	}
	switch by := now.Truncate(time.Second).Sub(*v.ExpireTime); {
	case by > 0:
		v.say("It expired %s ago, at %s. If that cannot be, check this machine's clock.", by, v.ExpireTime.Format(time.RFC3339))
		return true
	default:
		v.say("It expires in %s, at %s.", -by, v.ExpireTime.Format(time.RFC3339))
		return false
	}
}

// lookBack searches the versions of the keyrings that the store still has.
func (e *evidence) lookBack(ctx context.Context, v *verdict, c *webhook.Callback, versions map[rotator.Target]int64) error {
	if e.older == nil {
		v.say("Either it was signed with a key that was retired, which this place does not keep, or the key has never been ours.")
		return nil
	}
	gone := false
	for t, current := range versions {
		dropped := time.Time{} // when the version after the one looked at was written
		for n := current; n > max(0, current-olderVersions); n-- {
			content, written, err := e.older(ctx, t, n)
			if err != nil {
				return err
			}
			if content == nil {
				gone = true
				continue
			}
			if keys, err := webhook.ParseKeys(t, content); err == nil && n < current {
				if id := signer(c, keys); id != "" {
					v.KeyID, v.Target, v.KeyState = id, t.String(), "retired"
					v.say("It was signed with key %s of %s, which was retired at %s.", id, t, dropped.UTC().Format(time.RFC3339))
					return nil
				}
			}
			dropped = written
		}
		gone = gone || current > olderVersions
	}
	if gone {
		v.say("Earlier versions of the keyring are destroyed: either it was signed with a key that was retired, or the key has never been ours.")
	} else {
		v.say("The key has never been ours: no version of the keyring has it.")
	}
	return nil
}
