package observe

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"tiwkeyd/internal/connlimit"
	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
	"tiwkeyd/tencent"
)

func requests(api, class string) string {
	return `tiwkeyd_tencent_requests_total{api="` + api + `",class="` + class + `"}`
}

func asked(operation, result string) string {
	return `tiwkeyd_store_requests_total{operation="` + operation + `",result="` + result + `"}`
}

// TestTencentCalls counts each answer under its class, and the time it took.
func TestTencentCalls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newWorld(), one)
		api := r.API(r.w)
		none := map[string]string{}
		for _, class := range []string{"ok", "doubtful", "refused_for_now", "refused"} {
			none[requests(setAPI, class)], none[requests(describeAPI, class)] = "0", "0"
		}
		r.expect("before", none)
		r.w.setErrs = []error{answered(rotator.Doubtful, "InternalError"), errors.New("no answer of the API"), answered(rotator.RefusedForNow, "RequestLimitExceeded"), answered(rotator.Refused, "AuthFailure")}
		for range 3 {
			if _, err := api.KeyInForce(t.Context(), one); err != nil {
				t.Error(err)
			}
		}
		var errs []error
		for range 4 {
			_, err := api.SetKey(t.Context(), one, secrets.NewKey("id", canary+"new"))
			errs = append(errs, err)
		}
		id, err := api.SetKey(t.Context(), one, secrets.NewKey("id", canary+"new"))
		if k, lookErr := api.KeyInForce(t.Context(), one); id != "request" || err != nil || k.Reveal() != canary+"new" || lookErr != nil {
			t.Errorf("the answers do not come through: %s, %v, %v", id, err, lookErr)
		}
		var answer *rotator.APIError
		if !errors.As(errs[3], &answer) || answer.Code != "AuthFailure" {
			t.Errorf("the errors do not come through: %v", errs)
		}
		r.expect("after", map[string]string{requests(setAPI, "ok"): "1", requests(setAPI, "doubtful"): "2", requests(setAPI, "refused_for_now"): "1", requests(setAPI, "refused"): "1",
			requests(describeAPI, "ok"): "4", requests(describeAPI, "doubtful"): "0",
			`tiwkeyd_tencent_request_duration_seconds_count{api="` + setAPI + `"}`: "5", `tiwkeyd_tencent_request_duration_seconds_sum{api="` + setAPI + `"}`: "1",
			`tiwkeyd_tencent_request_duration_seconds_count{api="` + describeAPI + `"}`: "4", `tiwkeyd_tencent_request_duration_seconds_sum{api="` + describeAPI + `"}`: "0.8",
			`tiwkeyd_tencent_request_duration_seconds_bucket{api="` + setAPI + `",le="0.1"}`: "0", `tiwkeyd_tencent_request_duration_seconds_bucket{api="` + setAPI + `",le="0.25"}`: "5"})
	})
}

// TestStoreCalls does the same for the store, and hands everything through.
func TestStoreCalls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newWorld(), one)
		s := r.Store(r.w)
		k := &rotator.Keyring{Target: one, Keys: []rotator.Entry{{Key: secrets.NewKey("id", canary), State: rotator.Current}}}
		if v, err := s.Write(t.Context(), one, k, 0); v != 1 || err != nil {
			t.Errorf("written: %d, %v", v, err)
		}
		if _, err := s.Write(t.Context(), one, k, 0); !errors.Is(err, rotator.ErrConflict) {
			t.Errorf("a conflict: %v", err)
		}
		if got, err := s.Read(t.Context(), one); got.Version != 1 || !got.Keyring.CallbackKey().Equal(secrets.NewKey("", canary)) || err != nil {
			t.Errorf("read: %v, %v", got, err)
		}
		if err := s.Purge(t.Context(), one, 1); err != nil || s.String() != "memory" {
			t.Errorf("%v, %s", err, s)
		}
		r.w.storeErr = errAway
		_, readErr := s.Read(t.Context(), one)
		_, writeErr := s.Write(t.Context(), one, k, 1)
		for _, err := range []error{readErr, writeErr, s.Purge(t.Context(), one, 1), s.Purge(t.Context(), one, 1)} {
			if !errors.Is(err, errAway) {
				t.Error(err)
			}
		}
		want := map[string]string{asked("read", "ok"): "1", asked("read", "failed"): "1", asked("read", "conflict"): "0", asked("write", "ok"): "1", asked("write", "conflict"): "1", asked("write", "failed"): "1",
			asked("purge", "ok"): "1", asked("purge", "failed"): "2", asked("purge", "conflict"): "0"}
		for op, n := range map[string]string{"read": "2", "write": "3", "purge": "3"} {
			sum := map[string]string{"2": "0.006", "3": "0.009"}[n]
			want[`tiwkeyd_store_request_duration_seconds_count{operation="`+op+`"}`] = n
			want[`tiwkeyd_store_request_duration_seconds_sum{operation="`+op+`"}`] = sum
			want[`tiwkeyd_store_request_duration_seconds_bucket{operation="`+op+`",le="0.0025"}`] = "0"
			want[`tiwkeyd_store_request_duration_seconds_bucket{operation="`+op+`",le="0.005"}`] = n
		}
		r.expect("after", want)
	})
}

// TestSteps counts what was done and what failed.
func TestSteps(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newWorld(), one)
		r.w.setErrs = []error{answered(rotator.Doubtful, "InternalError"), answered(rotator.RefusedForNow, "LimitExceeded")}
		stop := r.run()
		defer stop()
		time.Sleep(30 * time.Minute)
		step := func(step, result string) string {
			return `tiwkeyd_steps_total{result="` + result + `",step="` + step + `"}`
		}
		r.expect("a rotation", map[string]string{step("adopt", "done"): "1", step("stage", "done"): "1", step("push", "done"): "1", step("push", "failed"): "2", step("commit", "done"): "1",
			step("rollback", "done"): "0", step("retire", "done"): "0", step("claim", "failed"): "0", step("hasten", "done"): "0", step("reassert", "done"): "0"})
		count := func() string { return r.value(`tiwkeyd_store_requests_total{operation="write",result="failed"}`) }
		// One write fails, and then reads do: each counts once.
		r.w.change(func() { r.w.writeErr = errAway })
		r.engine.Ask(rotator.BySignal, one)
		time.Sleep(time.Second)
		if n := count(); n != "1" {
			t.Fatalf("%s writes failed", n)
		}
		r.expect("a write that failed", map[string]string{step("stage", "failed"): "1", step("observe", "failed"): "0"})
		r.w.change(func() { r.w.storeErr, r.w.writeErr = errAway, nil })
		time.Sleep(time.Hour)
		r.expect("reads that failed", map[string]string{step("stage", "failed"): "1", step("observe", "failed"): r.value(asked("read", "failed"))})
	})
}

// everything is a monitor all of whose metrics have a series.
func everything(t *testing.T) *rig {
	r := newRig(t, newWorld(), one, two)
	r.Registry.MustRegister(connlimit.New("page", 1, 0)) // as the daemon does
	r.w.setErrs = []error{answered(rotator.Doubtful, "InternalError")}
	r.change(func(s *Served) { s.TokenExpiry = func() (time.Time, bool) { return time.Now().Add(time.Hour), true } })
	stop := r.run()
	defer stop()
	time.Sleep(time.Hour)
	r.engine.Ask(rotator.BySignal, two)
	time.Sleep(time.Minute)
	return r
}

// TestLint is what Prometheus's own rules say, and that no label has a value from outside.
func TestLint(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		text := everything(t).scrape(t)
		problems, err := promlint.New(strings.NewReader(text)).Lint()
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range problems {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
		if strings.Contains(text, "InternalError") || strings.Contains(text, "in words") {
			t.Error("an answer is in the metrics")
		}
	})
}

// TestDocumented compares the metrics with what docs/operations.md says of them.
func TestDocumented(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		families, err := everything(t).Registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		b.WriteString("| metric | type | labels | meaning |\n|---|---|---|---|\n")
		for _, f := range families {
			if !strings.HasPrefix(f.GetName(), "tiwkeyd_") {
				continue
			}
			var labels []string
			for _, l := range f.GetMetric()[0].GetLabel() {
				labels = append(labels, "`"+l.GetName()+"`")
			}
			slices.Sort(labels)
			b.WriteString("| `" + f.GetName() + "` | " + strings.ToLower(f.GetType().String()) + " | " + strings.Join(labels, ", ") + " | " + f.GetHelp() + " |\n")
		}
		page, err := os.ReadFile("../../docs/operations.md")
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(page), "<!-- metrics: begin -->\n"+b.String()+"<!-- metrics: end -->") {
			t.Errorf("the table of docs/operations.md is not this:\n%s", b.String())
		}
	})
}

// TestBuildAndReloads.
func TestBuildAndReloads(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newWorld(), one)
		begun := seconds(time.Since(time.Unix(0, 0)))
		r.expect("at start", map[string]string{`tiwkeyd_build_info{goversion="go1",revision="abc",version="v1.2.3"}`: "1", "tiwkeyd_config_last_reload_successful": "1",
			"tiwkeyd_config_last_reload_success_timestamp_seconds": begun, `tiwkeyd_config_reloads_total{result="done"}`: "0", `tiwkeyd_config_reloads_total{result="failed"}`: "0"})
		time.Sleep(time.Hour)
		r.Reloaded(errAway)
		r.expect("a reload that failed", map[string]string{"tiwkeyd_config_last_reload_successful": "0", "tiwkeyd_config_last_reload_success_timestamp_seconds": begun,
			`tiwkeyd_config_reloads_total{result="done"}`: "0", `tiwkeyd_config_reloads_total{result="failed"}`: "1"})
		time.Sleep(time.Hour)
		r.Reloaded(nil)
		r.expect("one that succeeded", map[string]string{"tiwkeyd_config_last_reload_successful": "1", "tiwkeyd_config_last_reload_success_timestamp_seconds": seconds(time.Since(time.Unix(0, 0))),
			`tiwkeyd_config_reloads_total{result="done"}`: "1"})
	})
}

// TestToken: known, not known, and a store that has none.
func TestToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newWorld(), one)
		r.expect("the store has none", map[string]string{"tiwkeyd_vault_token_ttl_seconds": ""})
		var until time.Time
		r.change(func(s *Served) { s.TokenExpiry = func() (time.Time, bool) { return until, !until.IsZero() } })
		r.expect("not known", map[string]string{"tiwkeyd_vault_token_ttl_seconds": ""})
		until = time.Now().Add(time.Hour)
		time.Sleep(time.Minute)
		r.expect("known", map[string]string{"tiwkeyd_vault_token_ttl_seconds": "3540"})
	})
}

// TestAPIsOfEveryService have a name, so that no label is empty.
func TestAPIsOfEveryService(t *testing.T) {
	t.Parallel()
	for _, s := range secrets.Services() {
		set, describe := tencent.APIs(s)
		if !strings.HasPrefix(set, "Set") || !strings.HasPrefix(describe, "Describe") {
			t.Errorf("%s: %q, %q", s, set, describe)
		}
	}
}

// TestBrokenOff: a read whose caller went away says nothing about the store.
func TestBrokenOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newWorld(), one)
		s := r.Store(r.w)
		if _, err := s.Read(t.Context(), one); err != nil || r.Ready() != nil {
			t.Errorf("%v, %v", err, r.Ready())
		}
		time.Sleep(time.Second)
		r.w.storeErr = context.Canceled
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.Read(gone, one); err == nil || r.Ready() != nil {
			t.Errorf("%v, %v", err, r.Ready())
		}
		late, cancel := context.WithDeadline(t.Context(), time.Now())
		defer cancel()
		if _, err := s.Read(late, one); err == nil || r.Ready() == nil {
			t.Error("a store that does not answer in time is good")
		}
	})
}
