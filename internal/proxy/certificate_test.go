package proxy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// pair is a self-signed certificate and its key, in PEM.
type pair struct{ cert, key []byte }

func newPair(t *testing.T, serial int64) pair {
	return newPairUntil(t, serial, time.Now().Add(time.Hour))
}

func newPairUntil(t *testing.T, serial int64, end time.Time) pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "test"}, DNSNames: []string{"localhost"}, NotAfter: end}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pair{pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})}
}

// replace puts a file in another's place, as those do who replace certificates. Each is a
// second younger than the one before: in this test they come faster than a file system's clock
// ticks.
func replace(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		t.Fatal(err)
	}
	at := time.Now().Add(-time.Hour)
	if old, err := os.Stat(path); err == nil {
		at = old.ModTime().Add(time.Second)
	}
	if err := os.Chtimes(path+".new", at, at); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// TestCertificate is read again when it changes, and kept as long as the new one is no good.
func TestCertificate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	log := &locked{}
	load := func() (*Certificate, error) {
		return LoadCertificate(certFile, keyFile, slog.New(slog.NewTextHandler(log, nil)))
	}
	wrong := func(what string) {
		t.Helper()
		if c, err := load(); err == nil || c != nil || !strings.Contains(err.Error(), "TLS certificate") || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v", what, err)
		}
	}
	first, second, third := newPair(t, 1), newPair(t, 2), newPair(t, 3)
	wrong("no files")
	replace(t, certFile, first.cert)
	wrong("no key")
	replace(t, keyFile, second.key)
	wrong("another's key")
	replace(t, keyFile, []byte("nonsense"))
	wrong("nonsense")
	expired := newPairUntil(t, 4, time.Now().Add(-time.Minute))
	replace(t, certFile, expired.cert)
	replace(t, keyFile, expired.key)
	wrong("expired")
	replace(t, certFile, first.cert)
	replace(t, keyFile, first.key)
	for _, mode := range []os.FileMode{0o640, 0o604, 0o660} {
		if err := os.Chmod(keyFile, mode); err != nil {
			t.Fatal(err)
		}
		wrong(fmt.Sprintf("a key of mode %04o", mode))
	}
	replace(t, certFile, append([]byte("\ufeff"), first.cert...))
	replace(t, keyFile, append([]byte("\ufeff"), first.key...))
	if err := os.Chmod(certFile, 0o644); err != nil { // it is no secret
		t.Fatal(err)
	}
	c, err := load()
	if err != nil {
		t.Fatal(err)
	}
	serial := func() int64 {
		got, err := c.Get(&tls.ClientHelloInfo{})
		if err != nil || got == nil {
			t.Fatalf("Get: %v", err)
		}
		return got.Leaf.SerialNumber.Int64()
	}
	complaints := func() int { return strings.Count(log.String(), "the old one stays in use") }
	if first, again := serial(), serial(); first != 1 || again != 1 || log.String() != "" {
		t.Errorf("at first: serial %d, log %s", serial(), log)
	}
	for _, step := range []struct {
		name   string
		change func()
		want   int64
		mends  bool // the new pair is good
	}{
		{"the certificate alone", func() { replace(t, certFile, second.cert) }, 1, false},
		{"then its key", func() { replace(t, keyFile, second.key) }, 2, true},
		{"the key alone", func() { replace(t, keyFile, third.key) }, 2, false},
		{"then its certificate", func() { replace(t, certFile, third.cert) }, 3, true},
		{"nonsense", func() { replace(t, certFile, []byte("nonsense")) }, 3, false},
		{"an expired one", func() { replace(t, certFile, expired.cert); replace(t, keyFile, expired.key) }, 3, false},
		{"a key that others can read", func() {
			replace(t, certFile, second.cert)
			replace(t, keyFile, second.key)
			_ = os.Chmod(keyFile, 0o644)
		}, 3, false},
		{"which is mended", func() { _ = os.Chmod(keyFile, 0o600) }, 2, true},
		{"once more", func() { replace(t, certFile, third.cert); replace(t, keyFile, third.key) }, 3, true},
		{"both deleted", func() { _ = os.Remove(certFile); _ = os.Remove(keyFile) }, 3, false},
		{"back again", func() { replace(t, certFile, first.cert); replace(t, keyFile, first.key) }, 1, true},
		{"the same, touched", func() { _ = os.Chtimes(certFile, time.Time{}, time.Now()) }, 1, true},
	} {
		before, read := complaints(), strings.Count(log.String(), "read again")
		step.change()
		await(t, step.name, func() bool {
			c.checked = c.checked.Add(-checkPause) // or each step would take a second
			got := serial()
			if step.mends {
				return got == step.want && strings.Count(log.String(), "read again") > read
			}
			if got != step.want {
				t.Fatalf("%s: serial %d", step.name, got)
			}
			return complaints() > before
		})
	}
	if text := log.String(); strings.Contains(text, "PRIVATE KEY") || !strings.Contains(text, "not_after=") {
		t.Errorf("log:\n%s", text)
	}
	// What does not change is not read again, and looked at once a second at most.
	read := strings.Count(log.String(), "\n")
	checked := c.checked
	await(t, "it is looked at", func() bool { serial(); return c.checked != checked })
	if strings.Count(log.String(), "\n") != read || c.checked.Sub(checked) < checkPause {
		t.Errorf("it was read again, or looked at after %s", c.checked.Sub(checked))
	}
}
