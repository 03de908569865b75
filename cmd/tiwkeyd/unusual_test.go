package main

import (
	"strings"
	"syscall"
	"testing"

	"tiwkeyd/secrets/vault/vaulttest"
)

// TestKeyWithSpaces: Tencent tells the key with spaces around it, with which it does not sign.
func TestKeyWithSpaces(t *testing.T) {
	slow(t)
	t.Parallel()
	for _, first := range []string{"enroll", "run"} {
		t.Run(first, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.useVault(vaulttest.Start(t))
			app, service := testTarget.SdkAppID, string(testTarget.Service)
			r.server.SetKey(app, service, oldKey)
			r.server.Tell(app, func(inForce string) string { return " \t" + inForce + " \r\n" })
			var d *process
			if first == "run" {
				d = r.daemon("TIWKEYD_PROPAGATION=8s") // for callbacks to be signed with the old key
				r.await("the key is adopted", func() bool { return r.keyring() != nil })
			} else {
				r.finishes(nil, "enroll", testTarget.String())
			}
			adopted := r.keyring().CallbackKey()
			if adopted.Reveal() != oldKey {
				t.Error("another key was adopted than the one in force")
			}
			r.load(50)
			r.await("what Tencent signs is answered", func() bool {
				return r.receiver.Verified()[adopted.ID()] > 20 || r.sender.Counts().Refused > 20
			})
			if first == "run" {
				r.await("a new key is in force", func() bool { return r.settled() && r.currentID() != adopted.ID() })
				d.signal(syscall.SIGTERM)
				<-d.done
				return
			}
			r.finishes(nil, "rotate", testTarget.String())
			if !r.settled() || r.currentID() == adopted.ID() {
				t.Error("the key was not replaced")
			}
		})
	}
}

// TestUnusualKey: a key that receivers may be unable to use is adopted with a warning, which does not show it,
// and replaced like any other.
func TestUnusualKey(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ key, first, why string }{
		"control":    {"CANARY-key-with-a-control\x01character", "enroll", "it has control characters"},
		"long":       {"CANARY-key-that-is-long" + strings.Repeat("g", 42), "enroll", "it has more than 64 bytes"},
		"long (run)": {"CANARY-key-that-is-long" + strings.Repeat("g", 42), "run", "it has more than 64 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.useVault(vaulttest.Start(t))
			r.secret(c.key[:20]) // however it would be quoted
			r.server.SetKey(testTarget.SdkAppID, string(testTarget.Service), c.key)
			var p *process
			if c.first == "run" {
				p = r.daemon()
				r.await("the key is adopted", func() bool { return r.keyring() != nil })
			} else {
				p = r.start([]string{"enroll", testTarget.String()})
				<-p.done
				if p.code != 0 || r.keyring() == nil || r.keyring().CallbackKey().Reveal() != c.key {
					t.Fatalf("it was not adopted: %d\n%s", p.code, p)
				}
			}
			r.awaitOutput(p, "the key in force is adopted, but receivers may be unable to use it")
			for line := range strings.Lines(p.String()) {
				if strings.Contains(line, "is adopted, but") && (!strings.Contains(line, `"WARN"`) || !strings.Contains(line, testTarget.String()) || !strings.Contains(line, c.why)) {
					t.Errorf("the warning lacks something:\n%s", line)
				}
			}
			if c.first == "enroll" {
				r.finishes(nil, "rotate", testTarget.String())
			}
			r.await("another key is in force", func() bool { return r.settled() && r.keyring().CallbackKey().Reveal() != c.key })
		})
	}
}
