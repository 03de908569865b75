package proxy

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"tiwkeyd/internal/bounded"
	"tiwkeyd/internal/private"
)

// Certificate is a TLS certificate and key in two files, which are read again when they have
// changed. If the new ones are no good, the old ones stay in use.
type Certificate struct {
	certFile, keyFile string
	log               *slog.Logger

	mu      sync.Mutex
	current *tls.Certificate
	stamp   [2]fileStamp
	checked time.Time
}

type fileStamp struct {
	modified time.Time
	size     int64
}

// maxPEM is the largest file that is read for a certificate or a key.
const maxPEM = 1 << 20

// checkPause is how often the files are looked at, at most.
const checkPause = time.Second

// LoadCertificate reads the two files.
func LoadCertificate(certFile, keyFile string, log *slog.Logger) (*Certificate, error) {
	c := &Certificate{certFile: certFile, keyFile: keyFile, log: log}
	stamp, err := c.stat()
	if err != nil {
		return nil, err
	}
	pair, err := c.read()
	if err != nil {
		return nil, err
	}
	c.current, c.stamp, c.checked = pair, stamp, time.Now()
	return c, nil
}

// Get is for tls.Config.GetCertificate.
func (c *Certificate) Get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.checked) < checkPause {
		return c.current, nil
	}
	c.checked = time.Now()
	stamp, err := c.stat()
	if err == nil && stamp == c.stamp {
		return c.current, nil
	}
	var pair *tls.Certificate
	if err == nil {
		pair, err = c.read()
	}
	if err != nil {
		// The two files are not replaced at the same instant: it is tried again.
		c.log.Error("the new TLS certificate cannot be used; the old one stays in use", "error", err.Error())
		return c.current, nil
	}
	c.log.Info("TLS certificate read again", "file", c.certFile, "not_after", pair.Leaf.NotAfter)
	c.current, c.stamp = pair, stamp
	return c.current, nil
}

func (c *Certificate) stat() (stamp [2]fileStamp, err error) {
	for i, path := range []string{c.certFile, c.keyFile} {
		info, err := os.Stat(path)
		if err != nil {
			return stamp, fmt.Errorf("read the TLS certificate: %w", err)
		}
		if info.Size() > maxPEM {
			return stamp, fmt.Errorf("read the TLS certificate: %s is larger than %d bytes: it is no certificate or key", path, maxPEM)
		}
		stamp[i] = fileStamp{info.ModTime(), info.Size()}
	}
	return stamp, nil
}

func (c *Certificate) read() (*tls.Certificate, error) {
	var pair tls.Certificate
	cert, err := bounded.File(c.certFile, maxPEM)
	if err == nil {
		var key []byte
		if key, err = private.ReadFile(c.keyFile, maxPEM); err == nil {
			pair, err = tls.X509KeyPair(cert, key)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("read the TLS certificate from %s and %s: %w", c.certFile, c.keyFile, err)
	}
	// A renewal that went wrong must not take the place of a certificate that is still good.
	if pair.Leaf == nil || time.Now().After(pair.Leaf.NotAfter) {
		return nil, fmt.Errorf("the TLS certificate in %s has expired", c.certFile)
	}
	return &pair, nil
}
