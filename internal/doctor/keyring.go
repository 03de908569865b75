package doctor

import (
	"context"
	"errors"
	"fmt"
	"path"
	"time"

	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
	"tiwkeyd/secrets/vault"
)

// keyringsAtOnce is how many keyrings are read together.
const keyringsAtOnce = 4

// keyrings reads what is there already.
func (e *examination) keyrings(ctx context.Context) {
	if e.blocked(Keyring, Directory, Vault, VaultToken, VaultMount) {
		return
	}
	if e.unreadable {
		e.skip(Keyring, VaultPolicy)
		return
	}
	e.each(ctx, Keyring, e.Config.Targets, keyringsAtOnce, func(ctx context.Context, t secrets.Target) answer {
		ctx, cancel := context.WithTimeout(ctx, lookLimit)
		defer cancel()
		s, err := e.Store.Read(ctx, t)
		if err != nil {
			return e.unread(t, err)
		}
		f := Finding{Check: Keyring, Target: t.String(), Status: OK}
		e.judgeKeyring(&f, t, s)
		if s.Keyring != nil && f.Status == OK && e.Directory == nil {
			if v, err := e.Vault.Secret(ctx, t, 0); err == nil && !v.Deletes.IsZero() {
				f.Status, f.Mend = Warn, "set delete_version_after to 0 on the secret's metadata and on the mount's configuration"
				f.What += fmt.Sprintf("; Vault will delete it at %s, and receivers will know no key then", v.Deletes.UTC().Format(time.RFC3339))
			}
		}
		return answer{finding: f}
	})
}

// unread tells of a keyring that could not be read. An error that is not of a request is
// about its content.
func (e *examination) unread(t secrets.Target, err error) answer {
	var failed *vault.Error
	if errors.As(err, &failed) {
		return answer{vaultFailure(Keyring, t.String(), err), true}
	}
	f := Finding{Check: Keyring, Target: t.String(), Status: Fail, What: err.Error()}
	switch {
	case errors.Is(err, rotator.ErrNewerSchema):
		f.Mend = "use the version of tiwkeyd that wrote it, or a newer one"
	case e.Directory == nil:
		secret := path.Join(e.Config.VaultMount, e.Config.VaultPrefix, t.String())
		f.Mend = fmt.Sprintf("put back its last good version (`vault kv rollback -version=N %s`); until then the daemon does nothing for this target", secret)
	default:
		f.Mend = "put the file back from a backup, readable by the owner alone; until then the daemon does nothing for this target"
	}
	return answer{finding: f}
}

func (e *examination) judgeKeyring(f *Finding, t secrets.Target, s rotator.Snapshot) {
	k, now := s.Keyring, e.Now()
	if k == nil {
		f.What = "there is none yet: the first `tiwkeyd rotate` or `tiwkeyd run` takes over the key in force, then replaces it"
		if s.Version > 0 {
			f.Status, f.Mend = Warn, "bring it back if that was a mistake (`vault kv undelete`); else the daemon begins anew with the key in force"
			f.What = "there was one, and it was deleted: receivers know no key"
		}
		return
	}
	f.What = e.Phase(k, now)
	if !k.RotatedAt.IsZero() {
		f.What += fmt.Sprintf(", last rotated %s", k.RotatedAt.UTC().Format(time.RFC3339))
	}
	if due := e.Config.Schedule.Of(k).Due(t, k.RotatedAt); k.Overrides != nil && k.Overrides.Paused {
		f.What += ", paused"
	} else if k.Rotation == nil && due.After(now) {
		f.What += fmt.Sprintf(", next %s", due.UTC().Format(time.RFC3339))
	} else if k.Rotation == nil {
		f.What += ", due now"
	}
	if own, holds := e.Config.Policy.Propagation, e.Config.Policy.Of(k).Propagation; holds != own {
		f.What += fmt.Sprintf(", its receivers get %s, as it says, in place of %s", holds, own)
	}
	key, known := e.inForce[t]
	switch {
	case k.Edited:
		f.Status, f.Mend = Fail, "start the daemon, or run `tiwkeyd rotate "+t.String()+"`: both write them anew; then see who may write the secret"
		f.What += "; callback_key or accept was changed by hand, and receivers may refuse genuine callbacks"
	case known && !key.IsZero() && k.Lookup(key) == nil:
		f.Status, f.Mend = Warn, "see who set it; `tiwkeyd run` does what TIWKEYD_ON_DRIFT says ("+string(e.Config.Policy.OnDrift)+")"
		f.What += "; Tencent signs with a key that is not in it, and receivers refuse those callbacks"
	case known && key.IsZero() && k.Current() != nil:
		f.Status, f.Mend = Warn, "see who removed it; `tiwkeyd run` does what TIWKEYD_ON_DRIFT says ("+string(e.Config.Policy.OnDrift)+")"
		f.What += "; Tencent has no key, and its callbacks are unsigned"
	case k.Rotation != nil && k.Rotation.LastError != nil:
		last := k.Rotation.LastError
		f.Status, f.Mend = Warn, "mend what the error says, then `tiwkeyd rotate`"
		f.What += fmt.Sprintf("; the last attempt failed with %s: %s (RequestId %s)", last.Code, last.Message, last.RequestID)
	case k.Overrides != nil && (k.Overrides.Schedule != "" || k.Overrides.Grace != 0): // else it is told of all targets
		e.crowded(f, k)
	}
}
