package vaultkeys

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"go.uber.org/goleak"

	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
	"tiwkeyd/secrets/vault"
	"tiwkeyd/secrets/vault/vaulttest"
	"tiwkeyd/tencent/tiwtest"
	"tiwkeyd/webhook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const canary = "CANARY-key-in-vault"

var target = webhook.Target{SdkAppID: 1400000001, Service: secrets.WhiteboardPush}

// open gives a store with a token of its own, which may do what a policy says and no more; ""
// stands for all.
func open(t *testing.T, v *vaulttest.Server, policy string) (*vault.Store, string) {
	t.Helper()
	token := v.Token
	if policy != "" {
		name := "policy-" + strings.ToLower(strings.NewReplacer("/", "-", ",", "", "'", "").Replace(t.Name()))
		v.Policy(name, policy)
		token = v.NewToken(name, "2h")
	}
	login, err := vault.LoginFromEnv(func(name string) string { return map[string]string{"VAULT_TOKEN": token}[name] })
	if err != nil {
		t.Fatal(err)
	}
	s, err := vault.New(vault.Options{Address: v.Addr, Mount: "secret", Prefix: "tiw", Login: login})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s, token
}

// write puts a keyring with these keys, the last of them current.
func write(t *testing.T, s *vault.Store, at webhook.Target, values ...string) {
	t.Helper()
	k := &rotator.Keyring{Target: at, RotatedAt: time.Now()}
	for i, v := range values {
		e := rotator.Entry{Key: secrets.NewKey("id-"+v, v), State: rotator.Previous, CreatedAt: time.Now(), AcceptUntil: time.Now().Add(time.Hour)}
		if i == len(values)-1 {
			e.State, e.AcceptUntil = rotator.Current, time.Time{}
		}
		k.Keys = append(k.Keys, e)
	}
	now, err := s.Read(t.Context(), at)
	if err == nil {
		_, err = s.Write(t.Context(), at, k, now.Version)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func ids(k webhook.Keys) string {
	var all []string
	for _, key := range k.Accept {
		all = append(all, key.ID())
	}
	return strings.Join(all, " ")
}

func TestReader(t *testing.T) {
	t.Parallel()
	v := vaulttest.Start(t)
	kv := v.Client(v.Token).KVv2("secret")
	put := func(t *testing.T, data map[string]any) {
		t.Helper()
		if _, err := kv.Put(t.Context(), "tiw/"+target.String(), data); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name   string
		policy string
		setUp  func(t *testing.T, all *vault.Store)
		want   string   // the ids of the keys
		words  []string // of the error
		none   bool     // the error is that there is no keyring
	}{
		{name: "no keyring yet", setUp: func(*testing.T, *vault.Store) {}, words: []string{"vault " + v.Addr + " secret/tiw", "tiwkeyd rotate"}, none: true},
		{name: "a keyring", setUp: func(t *testing.T, all *vault.Store) { write(t, all, target, canary+"1", canary+"2") }, want: "id-" + canary + "2 id-" + canary + "1"},
		{name: "a newer schema, with members that nobody knows", setUp: func(t *testing.T, _ *vault.Store) {
			put(t, map[string]any{"schema": 99, "sdk_app_id": 1400000001, "service": "whiteboard-push", "accept": []string{canary + "3", canary}, "new": map[string]any{"x": []int{1}},
				"keys": []any{map[string]any{"id": "the-third", "value": canary + "3", "state": "resting", "new": true}}})
		}, want: "the-third accept[1]"},
		{name: "no key", setUp: func(t *testing.T, _ *vault.Store) { put(t, map[string]any{"accept": []string{}}) }, words: []string{`no key in "accept"`}},
		{name: "another's keyring", setUp: func(t *testing.T, _ *vault.Store) {
			put(t, map[string]any{"sdk_app_id": 7, "accept": []string{canary}})
		}, words: []string{"it belongs to SdkAppId 7"}},
		{name: "another type", setUp: func(t *testing.T, _ *vault.Store) { put(t, map[string]any{"accept": canary}) }, words: []string{"it is not the JSON of a keyring"}},
		{name: "the newest version deleted", setUp: func(t *testing.T, all *vault.Store) {
			put(t, map[string]any{"accept": []string{canary}})
			if err := kv.Delete(t.Context(), "tiw/"+target.String()); err != nil {
				t.Fatal(err)
			}
		}, words: []string{"there is no keyring"}, none: true},
		{name: "the newest version destroyed", setUp: func(t *testing.T, all *vault.Store) {
			secret, err := kv.Put(t.Context(), "tiw/"+target.String(), map[string]any{"accept": []string{canary}})
			if err == nil {
				err = kv.Destroy(t.Context(), "tiw/"+target.String(), []int{secret.VersionMetadata.Version})
			}
			if err != nil {
				t.Fatal(err)
			}
		}, words: []string{"there is no keyring"}, none: true},
		{name: "no right to read", policy: `path "secret/data/other/*" { capabilities = ["read"] }`, setUp: func(*testing.T, *vault.Store) {},
			words: []string{"permission denied", `lacks the capability read on "secret/data/tiw/1400000001/whiteboard-push"`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			all, _ := open(t, v, "")
			c.setUp(t, all)
			policy := c.policy
			if policy == "" {
				policy = `path "secret/data/tiw/*" { capabilities = ["read"] }`
			}
			store, token := open(t, v, policy)
			keys, err := New(store).ReadKeys(t.Context(), target)
			if ids(keys) != c.want || (err == nil) != (c.words == nil) || errors.Is(err, webhook.ErrNoKeyring) != c.none {
				t.Fatalf("%q, %v", ids(keys), err)
			}
			for _, w := range c.words {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q is not in: %v", w, err)
				}
			}
			if err != nil && (strings.Contains(err.Error(), canary) || strings.Contains(err.Error(), token)) {
				t.Errorf("a secret shows in: %v", err)
			}
			if err == nil {
				if keys.SdkAppID != target.SdkAppID || keys.AcceptUnsigned {
					t.Errorf("%+v", keys)
				}
				for _, k := range keys.Accept {
					expire := time.Now().Add(time.Hour)
					if id, err := webhook.Verify(tiwtest.Callback(target.SdkAppID, "x", 1, k.Reveal(), expire), keys, time.Now()); id != k.ID() || err != nil {
						t.Errorf("%s: %s, %v", k, id, err)
					}
				}
			}
			if name := New(store).String(); name != "vault "+v.Addr+" secret/tiw" {
				t.Errorf("it is called %s", name)
			}
		})
	}
	t.Run("who waits no more", func(t *testing.T) {
		store, _ := open(t, v, `path "secret/data/tiw/*" { capabilities = ["read"] }`)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := New(store).ReadKeys(ctx, target); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	t.Run("a cache sees a change", func(t *testing.T) { cacheSeesChange(t, v, kv) })
}

// cacheSeesChange has a cache on top, which keeps what it holds while Vault is sealed.
func cacheSeesChange(t *testing.T, v *vaulttest.Server, kv *api.KVv2) {
	all, _ := open(t, v, "")
	if err := kv.DeleteMetadata(t.Context(), "tiw/"+target.String()); err != nil {
		t.Fatal(err)
	}
	store, _ := open(t, v, `path "secret/data/tiw/*" { capabilities = ["read"] }`)
	cache := webhook.NewCache(t.Context(), New(store), webhook.CacheOptions{Every: 20 * time.Millisecond}, target)
	t.Cleanup(cache.Close)
	hang, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	never := func(webhook.Keys) bool { return false }
	holds := func(want string) {
		t.Helper()
		for held := ""; held != want; {
			keys, _ := cache.Reread(hang, target.SdkAppID, never)
			if held = ids(keys); hang.Err() != nil {
				t.Fatalf("it holds %q, never %q", held, want)
			}
		}
	}
	if _, err := cache.Reread(t.Context(), target.SdkAppID, never); !errors.Is(err, webhook.ErrNoKeyring) || cache.Ready() {
		t.Errorf("before there is a keyring: %v", err)
	}
	write(t, all, target, canary+"1")
	holds("id-" + canary + "1")
	write(t, all, target, canary+"1", canary+"2")
	holds("id-" + canary + "2 id-" + canary + "1")
	v.Seal()
	// A reading that was under way when Vault was sealed may end in another way.
	for err := error(nil); err == nil || !strings.Contains(err.Error(), "unseal it"); {
		var keys webhook.Keys
		short, done := context.WithTimeout(hang, 3*time.Second)
		keys, err = cache.Reread(short, target.SdkAppID, never)
		done()
		if hang.Err() != nil || ids(keys) != "id-"+canary+"2 id-"+canary+"1" || !cache.Ready() {
			t.Fatalf("while Vault is sealed: %q, %v", ids(keys), err)
		}
	}
	v.Unseal()
	write(t, all, target, canary+"2")
	holds("id-" + canary + "2")
}
