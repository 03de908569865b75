package main

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
	"tiwkeyd/secrets/vault/vaulttest"
	"tiwkeyd/webhook"
)

// history is a secret in Vault with all its versions.
type history struct {
	t     *testing.T
	vault *vaulttest.Server
	path  string
}

// written gives when the version without a key was written that follows the last one with it,
// read from Vault without tiwkeyd's help, and that last one's number.
func (h *history) written(key string) (at time.Time, last int) {
	h.t.Helper()
	kv := h.vault.Client(h.vault.Token).KVv2("secret")
	all, err := kv.GetVersionsAsList(h.t.Context(), h.path)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, m := range all {
		v, err := kv.GetVersion(h.t.Context(), h.path, m.Version)
		if err != nil {
			h.t.Fatal(err)
		}
		if strings.Contains(fmt.Sprint(v.Data["accept"]), key) {
			last = m.Version
		} else if last > 0 && m.Version == last+1 {
			at = m.CreatedTime
		}
	}
	return at, last
}

func (h *history) change(f func(*api.KVv2) error) {
	h.t.Helper()
	if err := f(h.vault.Client(h.vault.Token).KVv2("secret")); err != nil {
		h.t.Fatal(err)
	}
}

// TestVerifyRetired tells of a key that real rotations have retired, from the versions of the
// keyring that Vault still has.
func TestVerifyRetired(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	v := vaulttest.Start(t)
	r.useVault(v)
	v.Policy("receiver", readOnly)
	token := v.NewToken("receiver", "2h")
	r.secret(token)
	env := []string{"VAULT_TOKEN=" + token, "VAULT_TOKEN_FILE="}
	h := &history{t, v, "tiw/" + testTarget.String()}
	h.change(func(*api.KVv2) error {
		_, err := v.Client(v.Token).Logical().Write("secret/metadata/"+h.path, map[string]any{"max_versions": 60})
		return err
	})
	r.server.SetKey(testTarget.SdkAppID, string(testTarget.Service), oldKey)
	old, never := secrets.NewKey("old", oldKey), r.newKey()
	app := testTarget.SdkAppID

	// Two rotations and two retirements; nothing is destroyed.
	d := r.daemon("TIWKEYD_VAULT_KEEP_VERSIONS=true", "TEST_SPEED=600", noRaceSleep)
	var ids []string
	for range 2 {
		r.await("a rotation and its retirement", func() bool {
			k := r.keyring()
			return k != nil && r.settled() && len(k.Keys) == 1 && !k.RotatedAt.IsZero() && (len(ids) == 0 || r.currentID() != ids[len(ids)-1])
		})
		ids = append(ids, r.currentID())
		d.signal(syscall.SIGUSR1)
	}
	r.await("the third key", func() bool { return r.settled() && r.currentID() != ids[1] })
	d.signal(syscall.SIGTERM)
	<-d.done
	current := r.keyring().CallbackKey()
	previous := r.previous()

	got := r.verified("current", r.fresh(app, current), nil, env, 0, "", ", the current one.")
	if got.KeyID != current.ID() || got.KeyState != "current" {
		t.Errorf("%+v", got)
	}
	got = r.verified("previous", r.fresh(app, previous.Key), nil, env, 0, "", ", the previous one, accepted until "+previous.AcceptUntil.UTC().Format(time.RFC3339))
	if got.KeyID != ids[1] {
		t.Errorf("%+v", got)
	}
	at, last := h.written(oldKey)
	if at.IsZero() || last < 3 {
		t.Fatalf("the old key was in version %d, and is not in one of %s", last, at)
	}
	words := "of " + testTarget.String() + ", which was retired at " + at.UTC().Format(time.RFC3339)
	got = r.verified("retired", r.fresh(app, old), nil, env, exitRefused, webhook.BadSignature, words, "None of the keys accepted now")
	if got.KeyState != "retired" || got.Target != testTarget.String() || got.KeyID == "" || got.KeyID == ids[0] {
		t.Errorf("%+v", got)
	}
	r.verified("retired, and expired", r.signed(app, old, time.Now().Add(-time.Hour)), nil, env, exitRefused, webhook.BadSignature, words, "It expired 1h0m")
	r.verified("retired, and all services looked at", r.fresh(app, old), nil, append(env, "TIWKEYD_TARGETS=7"), exitRefused, webhook.BadSignature, words)
	r.verified("never ours", r.fresh(app, never), nil, env, exitRefused, webhook.BadSignature, "The key has never been ours: no version of the keyring has it.")
	r.verified("unsigned", r.fresh(app, secrets.Key{}), nil, env, exitRefused, webhook.Unsigned, "It has no Sign.")
	r.verified("no keyring", r.fresh(7, current), nil, env, exitRefused, webhook.WrongApplication, "There is no keyring of SdkAppId 7 at vault "+v.Addr+" secret/tiw.")
	r.verified("above 2^53", r.fresh(1<<53+1, current), nil, env, exitRefused, webhook.WrongApplication, "There is no keyring of SdkAppId 9007199254740993")

	// The version that came after the last one with the key is deleted: the time is not known
	// to the second any more.
	h.change(func(kv *api.KVv2) error { return kv.DeleteVersions(t.Context(), h.path, []int{last + 1}) })
	r.verified("a gap", r.fresh(app, old), nil, env, exitRefused, webhook.BadSignature, "which was retired at the latest at ")
	r.verified("never ours, with a gap", r.fresh(app, never), nil, env, exitRefused, webhook.BadSignature, "Earlier versions of the keyring are destroyed: either")
	h.change(func(kv *api.KVv2) error { return kv.Undelete(t.Context(), h.path, []int{last + 1}) })
	r.verified("no gap", r.fresh(app, old), nil, env, exitRefused, webhook.BadSignature, words)

	// A gap after that changes nothing.
	h.change(func(kv *api.KVv2) error { return kv.DeleteVersions(t.Context(), h.path, []int{last + 2}) })
	r.verified("a gap later on", r.fresh(app, old), nil, env, exitRefused, webhook.BadSignature, words)

	// The versions with it are destroyed.
	var versions []int
	for n := 1; n <= last; n++ {
		versions = append(versions, n)
	}
	h.change(func(kv *api.KVv2) error { return kv.Destroy(t.Context(), h.path, versions) })
	got = r.verified("destroyed", r.fresh(app, old), nil, env, exitRefused, webhook.BadSignature, "Earlier versions of the keyring are destroyed: either it was signed with a key that was retired, or the key has never been ours.")
	if got.KeyID != "" || got.KeyState != "" || got.Target != "" {
		t.Errorf("%+v", got)
	}
	h.tooManyVersions(r, env, never)
	h.vaultIsAway(r, env, r.fresh(app, current), r.fresh(app, never))
}

// previous is the entry of the key that was replaced last.
func (r *rig) previous() rotator.Entry {
	r.t.Helper()
	for _, e := range r.keyring().Keys {
		if e.State == rotator.Previous {
			return e
		}
	}
	r.t.Fatal("there is no previous key")
	return rotator.Entry{}
}

// tooManyVersions: it says so when it has not looked at all of them.
func (h *history) tooManyVersions(r *rig, env []string, never secrets.Key) {
	h.t.Helper()
	target := secrets.Target{SdkAppID: 1400000009, Service: secrets.OnlineRecord}
	h.change(func(*api.KVv2) error {
		_, err := h.vault.Client(h.vault.Token).Logical().Write("secret/metadata/tiw/"+target.String(), map[string]any{"max_versions": 60})
		return err
	})
	first, second := r.newKey(), r.newKey()
	r.put(target, entry(first, rotator.Current))
	r.put(target, entry(second, rotator.Current))
	for n := 3; n <= olderVersions; n++ {
		r.put(target, entry(second, rotator.Current))
	}
	body := r.fresh(target.SdkAppID, first)
	r.verified("the first of thirty", body, nil, append(env, "TIWKEYD_TARGETS="), exitRefused, webhook.BadSignature, "with key "+first.ID()+" of "+target.String()+", which was retired at ")
	r.verified("none of thirty", r.fresh(target.SdkAppID, never), nil, append(env, "TIWKEYD_TARGETS="), exitRefused, webhook.BadSignature, "no version of the keyring has it")
	r.put(target, entry(second, rotator.Current))
	r.verified("the first of thirty-one", body, nil, append(env, "TIWKEYD_TARGETS="), exitRefused, webhook.BadSignature, "None of the last 30 versions of the keyring has the key: either it was retired before them, or it has never been ours.")
	// A keyring that was deleted is none.
	h.change(func(kv *api.KVv2) error { return kv.Delete(h.t.Context(), "tiw/"+target.String()) })
	r.verified("deleted", body, nil, append(env, "TIWKEYD_TARGETS="), exitRefused, webhook.WrongApplication, "There is no keyring of SdkAppId 1400000009")
}

// vaultIsAway: who cannot read the keys does not say that a callback is not genuine.
func (h *history) vaultIsAway(r *rig, env []string, good, never string) {
	h.t.Helper()
	unread := func(name, body string, env []string, words ...string) {
		h.t.Helper()
		out, complaint, code := r.verdictOf(body, nil, env...)
		if code != exitUnsettled || out != "" {
			h.t.Errorf("%s: %d\n%s%s", name, code, out, complaint)
		}
		for _, w := range words {
			if !strings.Contains(complaint, w) {
				h.t.Errorf("%s: %q is not in:\n%s", name, w, complaint)
			}
		}
	}
	// A token that may read one service's keyring alone will do where that one explains it.
	h.vault.Policy("narrow", `path "secret/data/tiw/1400000001/whiteboard-push" { capabilities = ["read"] }`)
	narrow := h.vault.NewToken("narrow", "2h")
	r.secret(narrow)
	all := "TIWKEYD_TARGETS=7"
	r.verified("narrow", good, nil, append(env, "VAULT_TOKEN="+narrow, all), 0, "")
	unread("narrow", never, append(env, "VAULT_TOKEN="+narrow, all), "1400000001/online-record", "lacks the capability read on", "1400000001/transcode")
	h.vault.Policy("narrow", `path "secret/data/tiw/1400000001/video-generation" { capabilities = ["read"] }`)
	unread("no right", good, append(env, "VAULT_TOKEN="+narrow, all), `lacks the capability read on "secret/data/tiw/1400000001/whiteboard-push"`)
	h.vault.Seal()
	unread("sealed", good, env, "unseal it")
	h.vault.Stop()
	unread("stopped", good, env, "check VAULT_ADDR")
	r.verified("malformed, for which nobody need be asked", "{", nil, env, exitRefused, webhook.Malformed)
}
