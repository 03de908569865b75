package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tiwkeyd/secrets"
	"tiwkeyd/secrets/vault/vaulttest"
	"tiwkeyd/tencent/tiwtest"
	"tiwkeyd/webhook"
	"tiwkeyd/webhook/vaultkeys"
)

// receiverPolicy is all that a receiver may do in Vault.
const receiverPolicy = `path "secret/data/tiw/*" { capabilities = ["read"] }`

// fleet is receivers of several kinds, each kind for an application of its own, a daemon for
// each, and a sender for each receiver.
type fleet struct {
	*rig
	vault *vaulttest.Server
	kinds []*kind
	watch func(tiwtest.Answer) // is told what became of each callback, unless it is nil
}

// kind is receivers of one sort, and what they need.
type kind struct {
	name        string
	target      secrets.Target
	propagation time.Duration
	urls        []string
	senders     []*tiwtest.Sender
	daemon      *process
	last        string // the current key at the last rotation counted
	rotations   int
}

func newFleet(t testing.TB) *fleet {
	f := &fleet{rig: newRig(t), vault: vaulttest.Start(t)}
	f.useVault(f.vault)
	f.vault.Policy("receiver", receiverPolicy)
	return f
}

// add makes a kind with an application that had a key before.
func (f *fleet) add(name string, propagation time.Duration) *kind {
	k := &kind{name: name, propagation: propagation, target: secrets.Target{SdkAppID: testTarget.SdkAppID + int64(len(f.kinds)), Service: secrets.WhiteboardPush}}
	f.server.AddApp(k.target.SdkAppID)
	old := fmt.Sprintf("%s-%d", oldKey, len(f.kinds))
	f.secret(old)
	f.server.SetKey(k.target.SdkAppID, string(k.target.Service), old)
	f.kinds = append(f.kinds, k)
	return k
}

// rereadPatience is how long a callback waits for the keys: less than senders do, and more than a Vault
// needs that shares two cores with fifty receivers and the race detector.
const rereadPatience = 20 * time.Second

// goReceivers are n receivers made with the package webhook, each with a client of the Vault
// at an address, a token and a cache of its own.
func (f *fleet) goReceivers(k *kind, address string, n int) {
	f.t.Helper()
	for range n {
		token := f.vault.NewToken("receiver", "2h")
		f.secret(token)
		cache := webhook.NewCache(context.Background(), vaultkeys.New(storeIn(f.t, address, token)), webhook.CacheOptions{}, k.target)
		server := httptest.NewServer(webhook.Middleware(webhook.Options{Keys: cache, RereadTimeout: rereadPatience})(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
		f.t.Cleanup(func() { server.Close(); cache.Close() })
		k.urls = append(k.urls, server.URL)
	}
}

// proxies are n processes of `tiwkeyd proxy` with a token each, before one receiver that asks
// for the id of the verified key.
func (f *fleet) proxies(k *kind, n int) {
	f.t.Helper()
	behind := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if r.Header.Get("X-Tiwkeyd-Key-Id") == "" {
			http.Error(w, "there is no key id", http.StatusForbidden)
		}
	}))
	f.t.Cleanup(behind.Close)
	for range n {
		token := f.vault.NewToken("receiver", "2h")
		f.secret(token)
		p := f.start([]string{"proxy", "--listen", "127.0.0.1:0", "--metrics", "", "--upstream", behind.URL},
			"VAULT_TOKEN_FILE=", "VAULT_TOKEN="+token, "TIWKEYD_TARGETS="+k.target.String())
		f.awaitOutput(p, "hands genuine callbacks on")
		k.urls = append(k.urls, "http://"+announced(p.String(), "listen"))
	}
}

// send has rate callbacks a second sent to all receivers together, until the test ends or stop is
// called, and then looks at what became of them.
func (f *fleet) send(rate int) (stop func()) {
	f.t.Helper()
	total := 0
	for _, k := range f.kinds {
		total += len(k.urls)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	for _, k := range f.kinds {
		for _, url := range k.urls {
			s := tiwtest.NewSender(f.server, url, tiwtest.Source{App: k.target.SdkAppID, Service: string(k.target.Service)})
			s.OnAnswer(f.watch)
			k.senders = append(k.senders, s)
			group.Go(func() { s.Run(ctx, rate/total) })
		}
	}
	began := time.Now()
	stop = func() {
		cancel()
		group.Wait()
	}
	f.t.Cleanup(func() {
		stop()
		all := int64(0)
		for _, k := range f.kinds {
			all += f.tally(k)
		}
		f.t.Logf("%d receivers, %d callbacks, %.0f a second", total, all, float64(all)/time.Since(began).Seconds())
	})
	return stop
}

// tally adds up what became of the callbacks of one kind.
func (f *fleet) tally(k *kind) (sent int64) {
	var refused, failed int64
	for _, s := range k.senders {
		c := s.Counts()
		sent, refused, failed = sent+c.Sent, refused+c.Refused, failed+c.Failed
		if c.Sent == 0 || c.Refused+c.Failed > 0 {
			f.t.Errorf("%s: %d of %d callbacks to one receiver were refused, %d failed: %+v", k.name, c.Refused, c.Sent, c.Failed, c.Refusals[:min(2, len(c.Refusals))])
		}
	}
	f.t.Logf("%s: %d receivers, propagation %s, %d rotations; %d sent, %d refused, %d failed", k.name, len(k.urls), k.propagation, k.rotations, sent, refused, failed)
	return sent
}

// serve starts a kind's daemon.
func (f *fleet) serve(k *kind) {
	k.daemon = f.daemon("TIWKEYD_TARGETS="+k.target.String(), "TIWKEYD_PROPAGATION="+k.propagation.String())
	f.await(k.name+": its application is adopted and rotated", func() bool { return f.rotated(k) })
}

// rotated counts a rotation once it is settled.
func (f *fleet) rotated(k *kind) bool {
	s, err := f.store.Read(context.Background(), k.target)
	if err != nil || s.Keyring == nil || s.Keyring.Rotation != nil || s.Keyring.RotatedAt.IsZero() {
		return false
	}
	for _, e := range s.Keyring.Keys {
		f.secret(e.Key.Reveal())
	}
	current := s.Keyring.CallbackKey()
	if current.ID() == k.last || current.Reveal() != f.server.KeyInForce(k.target.SdkAppID, string(k.target.Service)) {
		return false
	}
	k.last = current.ID()
	k.rotations++
	return true
}

// betweenRotations is how many callbacks every receiver gets from one rotation to the next.
const betweenRotations = 10

// counts tells how many callbacks each receiver of a kind was sent.
func (f *fleet) counts(k *kind) []int64 {
	var all []int64
	for _, s := range k.senders {
		all = append(all, s.Counts().Sent)
	}
	return all
}

// rotate has every kind rotated n times.
func (f *fleet) rotate(n int) {
	var group sync.WaitGroup
	for _, k := range f.kinds {
		group.Go(func() {
			for k.rotations < n {
				k.daemon.signal(syscall.SIGUSR1)
				f.await(k.name+": another rotation", func() bool { return f.rotated(k) })
				seen := f.counts(k)
				f.await(k.name+": callbacks to every receiver", func() bool {
					now := f.counts(k)
					for i := range now {
						if now[i] < seen[i]+betweenRotations {
							return false
						}
					}
					return true
				})
			}
		})
	}
	group.Wait()
}

// fleetRate is what is sent to a fleet each second. Under the race detector a machine of two
// cores does a part of it.
func fleetRate() int {
	if raceEnabled {
		return 500
	}
	return 2000
}

// TestFleetOfGo: receivers that read the keyring when a signature is new to them need no
// propagation at all.
func TestFleetOfGo(t *testing.T) {
	f := newFleet(t)
	k := f.add("Go middleware", 0)
	f.serve(k)
	f.goReceivers(k, f.vault.Addr, 50)
	f.send(fleetRate())
	f.rotate(30)
}

// TestRevokeReaches every receiver: a callback signed with the leaked key is refused soon after
// the command has returned. That it is a second at most is shown with a clock of its own in
// the package webhook.
func TestRevokeReaches(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	k := f.add("Go middleware and proxies", 0)
	f.serve(k)
	f.goReceivers(k, f.vault.Addr, 10)
	f.proxies(k, 2)
	leaked := f.server.KeyInForce(k.target.SdkAppID, string(k.target.Service))
	answer := func(url, key string) int {
		res, err := http.Post(url, "application/json", strings.NewReader(string(tiwtest.Callback(k.target.SdkAppID, "WhiteboardPushStarted", 1, key, time.Now().Add(time.Hour)))))
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		return res.StatusCode
	}
	for _, url := range k.urls {
		if code := answer(url, leaked); code != http.StatusOK {
			t.Errorf("before the revocation a callback was answered %d", code)
		}
	}
	if out, code := f.run([]string{"rotate", "--revoke", k.target.String()}, "TIWKEYD_TARGETS="+k.target.String(), "TIWKEYD_PROPAGATION=0s"); code != 0 {
		t.Fatalf("%d: %s", code, out)
	}
	returned := time.Now()
	var mu sync.Mutex
	last := time.Duration(0) // when any receiver last accepted the leaked key
	var group sync.WaitGroup
	for _, url := range k.urls {
		group.Go(func() {
			f.await("the leaked key is refused", func() bool {
				sent := time.Since(returned)
				if answer(url, leaked) == http.StatusUnauthorized {
					return true
				}
				mu.Lock()
				defer mu.Unlock()
				last = max(last, sent)
				return false
			})
			if code := answer(url, f.server.KeyInForce(k.target.SdkAppID, string(k.target.Service))); code != http.StatusOK {
				t.Errorf("the new key is answered %d", code)
			}
		})
	}
	group.Wait()
	t.Logf("%d receivers; the last callback signed with the leaked key that was accepted was sent %s after the command returned", len(k.urls), last.Round(time.Millisecond))
}
