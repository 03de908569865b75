//go:build deploy

package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"tiwkeyd/internal/testport"
	"tiwkeyd/secrets/vault/vaulttest"
)

// asked is a real Prometheus that scrapes one address every second.
type asked struct{ addr string }

func prometheusOf(t *testing.T, r *rig, scraped string) asked {
	t.Helper()
	address, _ := testport.Free(t)
	a := asked{address}
	dir := t.TempDir()
	rules, err := filepath.Abs("../../deploy/prometheus/rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf("global: {scrape_interval: 1s, evaluation_interval: 1s}\nrule_files: [%q]\nscrape_configs:\n- job_name: tiwkeyd\n  static_configs: [{targets: [%q]}]\n", rules, scraped)
	if err := os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	program, err := exec.LookPath("prometheus")
	if err != nil {
		t.Fatal("there is no Prometheus to test with: apt-get install prometheus")
	}
	r.startProgram(program, []string{"--config.file=" + dir + "/prometheus.yml", "--storage.tsdb.path=" + dir + "/data", "--web.listen-address=" + a.addr})
	return a
}

// query gives the values that an expression has now.
func (a asked) query(expr string) ([]string, error) {
	resp, err := http.Get("http://" + a.addr + "/api/v1/query?query=" + url.QueryEscape(expr))
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	var got struct {
		Status, Error string
		Data          struct{ Result []struct{ Value [2]any } }
	}
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil {
		return nil, err
	}
	if got.Status != "success" {
		return nil, fmt.Errorf("%s", got.Error)
	}
	var values []string
	for _, r := range got.Data.Result {
		values = append(values, fmt.Sprint(r.Value[1]))
	}
	return values, nil
}

// TestDashboardQueries asks a real Prometheus, which scrapes a real daemon that rotates keys in
// a real Vault, for all that the dashboard shows: each panel has data. Then somebody else sets a
// key, and the alert of it fires. The metrics are as promtool wants them.
func TestDashboardQueries(t *testing.T) {
	v := vaulttest.Start(t)
	r := newRig(t)
	r.useVault(v)
	r.server.SetKey(testTarget.SdkAppID, string(testTarget.Service), oldKey)
	p := r.pages()
	d := r.daemon("TIWKEYD_HTTP_ADDR=127.0.0.1:0", "TIWKEYD_ON_DRIFT=alarm")
	addr := p.at(d)
	prometheus := prometheusOf(t, r, addr)
	r.await("a first rotation", func() bool { return r.settled() && !r.keyring().RotatedAt.IsZero() })

	_, metrics, err := p.get(addr, "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	lint := exec.Command("promtool", "check", "metrics")
	lint.Stdin = strings.NewReader(metrics)
	if out, err := lint.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}

	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal([]byte(deployed(t, "grafana/dashboard.json")), &dashboard); err != nil {
		t.Fatal(err)
	}
	for _, panel := range dashboard.Panels {
		for _, q := range panel.Targets {
			expr := strings.ReplaceAll(q.Expr, "$job", "tiwkeyd")
			r.await(panel.Title+" has data: "+expr, func() bool {
				values, err := prometheus.query(expr)
				if err != nil && strings.Contains(err.Error(), "parse error") {
					t.Fatalf("%s: %s: %v", panel.Title, expr, err)
				}
				for _, v := range values {
					if v != "NaN" {
						return true
					}
				}
				return false
			})
		}
	}

	r.server.SetKey(testTarget.SdkAppID, string(testTarget.Service), "CANARY-key-of-somebody-else-1234567890")
	r.secret("CANARY-key-of-somebody-else-1234567890")
	r.await("the alert of a foreign key", func() bool {
		values, err := prometheus.query(`ALERTS{alertname="TiwkeydDrift", alertstate="firing"}`)
		return err == nil && len(values) == 1
	})
	d.signal(syscall.SIGTERM)
	<-d.done
}
