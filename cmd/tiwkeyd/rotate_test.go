package main

import (
	"encoding/json"
	"strings"
	"syscall"
	"testing"
	"time"

	"tiwkeyd/internal/observe"
	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
	"tiwkeyd/secrets/vault/vaulttest"
	"tiwkeyd/tencent/tiwtest"
)

// statusJSON runs `status --json`.
func (r *rig) statusJSON() targetStatus {
	r.t.Helper()
	p := r.start([]string{"status", "--json"}, "TIWKEYD_LOG_LEVEL=error")
	<-p.done
	var all []targetStatus
	if err := json.Unmarshal([]byte(p.String()), &all); err != nil || p.code != 0 || len(all) != 1 {
		r.t.Fatalf("status --json: %d, %v\n%s", p.code, err, p)
	}
	return all[0]
}

// TestBusinessErrors has each of the six errors of the API page, one by one.
func TestBusinessErrors(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.useVault(vaulttest.Start(t))
	service := string(testTarget.Service)
	r.server.SetKey(testTarget.SdkAppID, service, oldKey)
	r.load(100)
	if out, code := r.run([]string{"rotate"}); code != 0 {
		t.Fatalf("the first rotation: %d\n%s", code, out)
	}
	for code, words := range map[string][]string{
		"AuthFailure":      {"the request was not authenticated", "TENCENTCLOUD_SECRET_ID"},
		"InvalidParameter": {"did not accept the request's contents", "report it"},
		"InvalidParameter.BodyParameterTypeUnmatched": {"did not accept the type", "report it"},
		"ResourceUnavailable.NotRegistered":           {"TIW is not enabled", "enable Interactive Whiteboard"},
		"ResourceUnavailable.ServiceExpired":          {"has expired or is in arrears", "renew it"},
		"UnauthorizedOperation.SdkAppId":              {"no such SdkAppId", "check the SdkAppId"},
	} {
		key, id := r.server.KeyInForce(testTarget.SdkAppID, service), r.currentID()
		for _, verb := range []string{"Set", "Describe"} {
			r.server.RefuseAlways(testTarget.SdkAppID, verb, code)
			out, exit := r.run([]string{"rotate"})
			for _, want := range append(words, code, "RequestId ") {
				if !strings.Contains(out, want) {
					t.Errorf("%s on %s: %q is not in:\n%s", code, verb, want, out)
				}
			}
			if exit != exitRefused {
				t.Errorf("%s on %s: exit status %d\n%s", code, verb, exit, out)
			}
			if r.currentID() != id || r.server.KeyInForce(testTarget.SdkAppID, service) != key {
				t.Errorf("%s on %s: a key changed", code, verb)
			}
			r.server.RefuseAlways(testTarget.SdkAppID, verb, "")
		}
		// Nobody tries again before the time; who asks need not wait for it.
		st := r.statusJSON()
		if st.Next == nil || !st.Next.After(time.Now()) || !strings.Contains(st.LastError, code) || st.RequestID == "" {
			t.Errorf("%s: status %+v", code, st)
		}
	}
	retryAt := r.keyring().Rotation.RetryAt
	sets := r.setCalls()
	d := r.daemon()
	r.awaitOutput(d, `"msg":"observe"`)
	if r.setCalls() != sets || r.keyring().Pending() != nil {
		if time.Now().Before(retryAt) {
			t.Error("a daemon tried again before its time")
		}
	}
	d.signal(syscall.SIGTERM)
	<-d.done
	if out, code := r.run([]string{"rotate", testTarget.String()}); code != 0 || !strings.Contains(out, "in force, and current") {
		t.Errorf("asked for, after the failures: %d\n%s", code, out)
	}
	if st := r.statusJSON(); st.LastError != "" || st.Phase != "settled" {
		t.Errorf("after a success: %+v", st)
	}
}

// TestFirstStart adopts a key, or starts without one.
func TestFirstStart(t *testing.T) {
	slow(t)
	t.Parallel()
	for name, key := range map[string]string{"with a key": oldKey, "without a key": ""} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			if key != "" {
				r.server.SetKey(testTarget.SdkAppID, string(testTarget.Service), key)
			}
			r.load(200)
			d := r.daemon()
			r.await("the first rotation", func() bool { return r.settled() && r.currentID() != "" && !r.keyring().RotatedAt.IsZero() })
			r.awaitOutput(d, `"msg":"commit done"`) // what was said before has come by then
			if says := strings.Contains(d.String(), "callbacks were unsigned until now"); says != (key == "") {
				t.Errorf("it says that callbacks were unsigned: %v", says)
			}
			if r.server.KeyInForce(testTarget.SdkAppID, string(testTarget.Service)) == key {
				t.Error("the key was not replaced")
			}
			if r.keyring().AcceptUnsigned {
				t.Error("unsigned callbacks are still accepted")
			}
			d.signal(syscall.SIGTERM)
			<-d.done
		})
	}
}

// TestDoubtful has Tencent give no definite answer: rotate says that it is not settled, and
// the next run settles it.
func TestDoubtful(t *testing.T) {
	slow(t)
	t.Parallel()
	r := newRig(t)
	r.server.SetKey(testTarget.SdkAppID, string(testTarget.Service), oldKey)
	r.load(100)
	r.rotated()
	before := r.currentID()
	for range 500 {
		r.server.Plan("Set", 0, tiwtest.Drop())
		r.server.Plan("Describe", 0, tiwtest.HTTPError())
	}
	out, code := r.run([]string{"rotate", "--timeout", "2s"})
	if code != exitUnsettled || !strings.Contains(out, "not settled yet") {
		t.Errorf("no answer: %d\n%s", code, out)
	}
	if r.currentID() != before {
		t.Error("the key changed")
	}
}

// TestRevokeAndNoWait are the two ways to rotate otherwise.
func TestRevokeAndNoWait(t *testing.T) {
	slow(t)
	t.Parallel()
	r := newRig(t)
	r.server.SetKey(testTarget.SdkAppID, string(testTarget.Service), oldKey)
	r.rotated()
	before := r.currentID()
	out, code := r.run([]string{"rotate", "--revoke"})
	if code != 0 || !strings.Contains(out, "callbacks may be refused") || len(r.keyring().Keys) != 1 || r.currentID() == before {
		t.Errorf("revoke: %d, %v\n%s", code, r.keyring().Accept(), out)
	}
	before = r.currentID()
	if out, code := r.run([]string{"rotate", "--no-wait"}); code != 0 || r.keyring().Pending() == nil || r.currentID() != before {
		t.Errorf("no-wait: %d\n%s", code, out)
	}
	d := r.daemon()
	r.await("a daemon does the rest", func() bool { return r.settled() && r.currentID() != before })
	if strings.Count(d.String(), `"msg":"stage done"`) != 0 {
		t.Error("it began a rotation of its own")
	}
}

func TestStatusTable(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.server.SetKey(testTarget.SdkAppID, string(testTarget.Service), oldKey)
	if out, code := r.run([]string{"status"}); code != 0 || !strings.Contains(out, "not adopted yet") {
		t.Errorf("%d\n%s", code, out)
	}
	r.rotated()
	out, code := r.run([]string{"status"})
	for _, want := range []string{"TARGET", testTarget.String(), "settled", r.currentID(), " until "} {
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("%d: %q is not in:\n%s", code, want, out)
		}
	}
	st := r.statusJSON()
	if st.Phase != "settled" || len(st.Keys) != 2 || st.Next == nil || st.RotatedAt == nil {
		t.Errorf("%+v", st)
	}
	for _, k := range []*rotator.Keyring{nil, {AcceptUnsigned: true}} {
		if phaseOf(k, time.Now()) == "settled" {
			t.Errorf("%v is settled", k)
		}
	}
}

// TestStatusLate: a pending key that is not in force five minutes after it was to be set.
func TestStatusLate(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	at := func(ago time.Duration) *rotator.Keyring {
		staged := time.Now().Add(-ago - propagation).UTC().Truncate(time.Second)
		return &rotator.Keyring{Target: testTarget, Rotation: &rotator.Rotation{ID: "r", Reason: rotator.BySchedule, StartedAt: staged}, Keys: []rotator.Entry{
			{Key: secrets.NewKey("old", oldKey), State: rotator.Current, CreatedAt: staged, ActivatedAt: staged},
			{Key: secrets.NewKey("new", oldKey+"-next"), State: rotator.Pending, CreatedAt: staged, PushAfter: staged.Add(propagation)}}}
	}
	r.secret(oldKey + "-next")
	for _, c := range []struct {
		ago  time.Duration
		late bool
	}{{-time.Minute, false}, {observe.LateAfter - time.Minute, false}, {observe.LateAfter + time.Minute, true}} {
		k := at(c.ago)
		s, err := r.store.Read(t.Context(), testTarget)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.store.Write(t.Context(), testTarget, k, s.Version); err != nil {
			t.Fatal(err)
		}
		out, _ := r.run([]string{"status"})
		want := "late: setting the key, since " + k.Pending().PushAfter.Format(time.RFC3339)
		st := r.statusJSON()
		if strings.Contains(out, want) != c.late || strings.Contains(out, "late:") != c.late || (st.LateSince != nil) != c.late || c.late && !st.LateSince.Equal(k.Pending().PushAfter) {
			t.Errorf("%s after it was to be set: %+v\n%s", c.ago, st, out)
		}
	}
}

// rotated has one rotation done by a daemon that is stopped again, and its old key's grace pass.
func (r *rig) rotated() {
	d := r.daemon()
	r.await("a first rotation", func() bool {
		k := r.keyring()
		return r.settled() && k != nil && len(k.Keys) == 2 && !k.RotatedAt.IsZero() // the store may not answer
	})
	d.signal(syscall.SIGTERM)
	<-d.done
}
