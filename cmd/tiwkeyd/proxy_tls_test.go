package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tiwkeyd/rotator"
)

// certificate writes a self-signed certificate for 127.0.0.1 and its key to two files, which
// take their names one after the other.
func certificate(t *testing.T, certFile, keyFile string, serial int64, between func()) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []struct {
		path, kind string
		content    []byte
	}{{certFile, "CERTIFICATE", cert}, {keyFile, "PRIVATE KEY", secret}} {
		if err := os.WriteFile(f.path+".new", pem.EncodeToMemory(&pem.Block{Type: f.kind, Bytes: f.content}), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(f.path+".new", f.path); err != nil {
			t.Fatal(err)
		}
		if f.path == certFile && between != nil {
			between()
		}
	}
}

// TestProxyTLS serves HTTPS with a certificate that is replaced while it runs, before a
// receiver that itself is served by HTTPS.
func TestProxyTLS(t *testing.T) {
	slow(t)
	t.Parallel()
	r := newRig(t)
	k := r.newKey()
	r.put(testTarget, entry(k, rotator.Current))
	var protos []string
	behind := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		protos = append(protos, q.Proto)
		_, _ = fmt.Fprint(w, q.Header.Get("X-Forwarded-Proto"))
	}))
	behind.EnableHTTP2 = true
	behind.StartTLS()
	t.Cleanup(behind.Close)
	dir := t.TempDir()
	certFile, keyFile, roots := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"), filepath.Join(dir, "roots")
	if err := os.WriteFile(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: behind.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	certificate(t, certFile, keyFile, 1, nil)
	p := r.proxy(behind.URL, []string{"--tls-cert", certFile, "--tls-key", keyFile}, "SSL_CERT_FILE="+roots)
	if !strings.HasPrefix(p.url, "https://") {
		t.Fatalf("it does not say that it serves HTTPS:\n%s", p)
	}
	// ask sends a callback on a new connection, and gives the certificate's number.
	ask := func() int64 {
		t.Helper()
		transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} //nolint:gosec // the number tells which it is
		defer transport.CloseIdleConnections()
		res, err := (&http.Client{Transport: transport}).Post(p.url, "application/json", strings.NewReader(r.fresh(testTarget.SdkAppID, k)))
		status, text := answerOf(t, res, err)
		if status != http.StatusOK || text != "https" {
			t.Fatalf("%d %s", status, text)
		}
		return res.TLS.PeerCertificates[0].SerialNumber.Int64()
	}
	if n := ask(); n != 1 {
		t.Errorf("certificate %d at first", n)
	}
	certificate(t, certFile, keyFile, 2, func() {
		r.await("it complains of a certificate without its key", func() bool {
			if n := ask(); n != 1 {
				t.Fatalf("certificate %d", n)
			}
			return strings.Contains(p.String(), "the old one stays in use")
		})
	})
	r.await("the new certificate is served", func() bool { return ask() == 2 })
	for _, f := range []string{certFile, keyFile} {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
	before := strings.Count(p.String(), "the old one stays in use")
	r.await("it complains of missing files", func() bool {
		return ask() == 2 && strings.Count(p.String(), "the old one stays in use") > before
	})
	for version, good := range map[uint16]bool{tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		conn, err := tls.Dial("tcp", strings.TrimPrefix(p.url, "https://"), &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: version}) //nolint:gosec // to see that it is refused
		if err == nil {
			_ = conn.Close()
		}
		if (err == nil) != good {
			t.Errorf("TLS %x: %v", version, err)
		}
	}
	for _, proto := range protos {
		if proto != "HTTP/2.0" {
			t.Errorf("the receiver was asked by %s", proto)
		}
	}
	p.process.signal(15)
	<-p.done
	if p.code != 0 {
		t.Errorf("exit status %d\n%s", p.code, p)
	}
}
