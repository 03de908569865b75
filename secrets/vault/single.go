package vault

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"tiwkeyd/secrets"
)

// Where the mount keeps one version only, Vault itself deletes the older one with each write, and
// nothing is left for Purge to destroy. The mount's max_versions is a floor for that of a secret's own
// metadata: the greater of both holds (seen in version 0.25 of the KV engine).
const (
	mountFresh  = 10 * time.Minute   // for how long what the mount keeps is believed
	secretFresh = 7 * 24 * time.Hour // and that a secret keeps no more
)

var errUnknown = errors.New("the answer does not tell how many versions are kept")

// singles remembers which secrets have no older version.
type singles struct {
	mu      sync.Mutex
	asked   time.Time // when the mount was last asked
	one     bool      // it keeps one version
	secrets map[secrets.Target]time.Time
}

// single reports whether Vault certainly keeps no older version of t's secret. Asking takes the
// capability to read the mount's config and the secret's metadata; without it nothing is certain.
func (s *Store) single(ctx context.Context, t secrets.Target) bool {
	m := &s.singles
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	if m.asked.IsZero() || now.Sub(m.asked) > mountFresh || now.Before(m.asked) {
		n, _, err := s.keeps(ctx, "config")
		m.asked, m.one = now, err == nil && n == 1
		if !m.one {
			m.secrets = nil // they may get older versions from now on
		}
	}
	if !m.one {
		return false
	}
	if at, known := m.secrets[t]; known && now.Sub(at) < secretFresh && !now.Before(at) {
		return true
	}
	n, versions, err := s.keeps(ctx, "metadata/"+s.path(t))
	if err != nil || n > 1 || versions != 1 {
		return false
	}
	if m.secrets == nil {
		m.secrets = map[secrets.Target]time.Time{}
	}
	m.secrets[t] = now
	return true
}

// keeps reads how many versions a mount, or a secret, is to keep, and how many a secret has.
func (s *Store) keeps(ctx context.Context, path string) (most int64, versions int, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	got, err := s.client.Logical().ReadWithContext(ctx, s.mount+"/"+path)
	if err != nil || got == nil {
		return 0, 0, cmp.Or(err, errUnknown)
	}
	n, ok := got.Data["max_versions"].(json.Number)
	if !ok {
		return 0, 0, errUnknown
	}
	if most, err = n.Int64(); err != nil {
		return 0, 0, err
	}
	held, _ := got.Data["versions"].(map[string]any)
	return most, len(held), nil
}
