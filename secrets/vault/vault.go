// Package vault keeps keyrings in Vault's KV version 2 secrets engine, one secret for each
// target, where the webhook receivers read them. Every write is check-and-set.
package vault

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/api"

	"tiwkeyd/internal/alive"
	"tiwkeyd/internal/bounded"
	"tiwkeyd/internal/hostport"
	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
)

// callTimeout bounds one request and the library's retries of it.
const callTimeout = 10 * time.Second

// How much is read of an answer, and of its headers. Vault stores secrets of 1 MiB at most unless told
// otherwise, and the list of 100,000 applications has 1.5 MB.
const (
	maxAnswer  = 4 << 20
	maxHeaders = 256 << 10
)

const (
	// idleConnections is how many connections to Vault are kept for the next request.
	idleConnections = 32
	// mostConnections is how many there may be: a Vault that is slow must not cost all the files that may be open.
	mostConnections = 40
)

// purgeReach is how many versions back Purge goes: Vault itself keeps ten unless told
// otherwise, and every retirement purges.
const purgeReach = 256

// maxExact is the highest SdkAppId that a keyring in Vault can have: KV version 2 keeps a
// JSON number as a float64, so that 2^53+1 would come back as 2^53 (seen with 1.21.0).
const maxExact = 1 << 53

// Options are a Store's settings. Vault's CA, namespace and the like come from the
// environment, as Vault's own library reads them.
type Options struct {
	Address string // a URL; by default that of VAULT_ADDR

	Mount  string // of the KV v2 engine: "secret"
	Prefix string // folder of the keyrings in it: "tiw"
	Login  Login
	Log    *slog.Logger // nil: none

	// LookOnly leaves a token that was given as it is: it is used, and not renewed.
	LookOnly bool
}

// Store is a rotator.Store in Vault.
type Store struct {
	client  *api.Client
	mount   string
	prefix  string
	session *session

	log     *slog.Logger
	checked atomic.Bool // the mount is known to be KV v2
	singles singles
}

// New gives a Store. It contacts nothing yet. Close ends its renewals.
func New(o Options) (*Store, error) {
	if err := cmp.Or(checkFiles(os.Getenv), checkEnvironment()); err != nil {
		return nil, err
	}
	cfg := api.DefaultConfig()
	if cfg.Error != nil {
		return nil, fmt.Errorf("vault: read the VAULT_… variables: %w", cfg.Error)
	}
	if o.Address != "" {
		cfg.Address = o.Address
	}
	for name, address := range map[string]string{"VAULT_ADDR": cfg.Address, "VAULT_AGENT_ADDR": cfg.AgentAddress} {
		if err := CheckAddress(address); address != "" && err != nil {
			return nil, fmt.Errorf("vault: %s: %w", name, err)
		}
	}
	if err := limit(cfg); err != nil {
		return nil, err
	}
	// The waits between the library's tries, the longest of which is twice the second figure, leave who
	// gives a call two seconds what Vault said ("sealed"), not only that there was no time.
	cfg.MinRetryWait, cfg.MaxRetryWait = 100*time.Millisecond, 500*time.Millisecond
	// The library keeps one connection more than there are processors; the engine deals with 32
	// targets at a time, and each of the others would be made, with its TLS, for one request.
	transport, ok := cfg.HttpClient.Transport.(*http.Transport)
	if !ok {
		return nil, errors.New("vault: the library's transport is not net/http's")
	}
	transport.MaxConnsPerHost, transport.MaxIdleConnsPerHost, transport.MaxResponseHeaderBytes = mostConnections, idleConnections, maxHeaders
	alive.Watch(transport) // after a request that failed the library closes idle connections itself
	client, err := api.NewClient(cfg)
	if err != nil {
		return nil, fmt.Errorf("vault: %w", err)
	}
	cfg.HttpClient.Transport = bounded.Transport{Transport: transport, Max: maxAnswer} // only now: the library sets up a unix socket in its own
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	session := newSession(client, o.Login, o.Log)
	session.lookOnly = o.LookOnly
	return &Store{client: client, mount: strings.Trim(o.Mount, "/"), prefix: strings.Trim(o.Prefix, "/"), session: session, log: o.Log}, nil
}

// CheckAddress reports what makes a VAULT_ADDR unusable, without quoting it: a password in it
// would be in every error and on the status page.
func CheckAddress(address string) error {
	u, err := url.Parse(address)
	switch {
	case err != nil || (u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "unix") || (u.Host == "" && u.Scheme != "unix"):
		return errors.New("it is not a URL of the form https://host:8200")
	case u.User != nil:
		return errors.New("it holds a user name or password, which Vault does not use: take them out")
	case u.Scheme == "unix" && u.Path == "":
		return errors.New("the path of the socket is missing: unix:///run/vault.sock")
	case u.Scheme == "unix":
		return nil
	case path.Base(u.Path) == "v1":
		return errors.New("it ends in /v1, which is added to it for each request: take that out")
	case strings.HasPrefix(u.Path+"/", "/ui/"):
		return errors.New("it is an address of Vault's pages for a browser: take out /ui and what comes after it")
	}
	return hostport.URL(u)
}

// Close ends the renewal of the token, which it does not revoke, and closes what connections are idle.
func (s *Store) Close() {
	s.session.close()
	s.client.CloneConfig().HttpClient.CloseIdleConnections()
}

// String names the store.
func (s *Store) String() string {
	name := "vault " + s.client.Address() + " " + s.mount + "/" + s.prefix
	if ns := s.client.Namespace(); ns != "" {
		name += " (namespace " + ns + ")"
	}
	return name
}

func (s *Store) path(t secrets.Target) string {
	p := strconv.FormatInt(t.SdkAppID, 10) + "/" + string(t.Service)
	if s.prefix != "" {
		p = s.prefix + "/" + p
	}
	return p
}

// Read gives the current version of the target's secret. A version that was deleted or
// destroyed holds no keyring but still counts: a write must name its number.
func (s *Store) Read(ctx context.Context, t secrets.Target) (rotator.Snapshot, error) {
	got, err := s.Secret(ctx, t, 0)
	if err != nil || got.Content == nil {
		return rotator.Snapshot{Version: got.Number}, err
	}
	snap := rotator.Snapshot{Version: got.Number, Written: got.Written}
	if snap.Keyring, err = rotator.DecodeKeyring(t, got.Content); err != nil {
		return rotator.Snapshot{}, fmt.Errorf("vault: the secret %s/%s: %w", s.mount, s.path(t), err)
	}
	if !got.Deletes.IsZero() {
		s.log.Warn("Vault is set up to delete this keyring, and receivers would know no key then: set delete_version_after to 0 on the secret's metadata and on the mount's configuration",
			"target", t.String(), "secret", s.mount+"/"+s.path(t), "deleted_at", got.Deletes)
	}
	return snap, nil
}

// Version is one version of a target's secret.
type Version struct {
	Number  int64
	Written time.Time
	Content []byte    // the keyring's JSON; nil: the version was deleted or destroyed
	Deletes time.Time // when Vault is set up to delete it, or did; zero: never
}

// Secret gives a target's secret as it stands, for those who need no more of it than
// receivers do: its current version, or the one of a number that is not 0. It gives the zero
// Version if there is none.
func (s *Store) Secret(ctx context.Context, t secrets.Target, number int64) (got Version, err error) {
	var query url.Values
	if number != 0 {
		query = url.Values{"version": {strconv.FormatInt(number, 10)}}
	}
	err = s.call(ctx, "read", "data/"+s.path(t), "read", func(ctx context.Context) error {
		known, err := s.checkMount(ctx)
		if err != nil {
			return err
		}
		v, err := s.read(ctx, s.path(t), query)
		switch {
		case err != nil:
			return err
		case v != nil:
			got = *v
		case !known:
			// A secret that is not there looks like a mount that is not there. Vault would
			// tell of the mount to a token that may read in it.
			return ErrNoMount
		}
		return nil
	})
	return got, err
}

// Write puts a new version if the current one is the one given, and of the same life.
func (s *Store) Write(ctx context.Context, t secrets.Target, k *rotator.Keyring, version int64) (int64, error) {
	named, err := k.Named()
	if err != nil {
		return 0, err
	}
	next, err := s.put(ctx, t, named, version)
	if err == nil && version > 0 {
		err = s.continued(ctx, t, k, version)
	}
	return next, err
}

// put writes by Vault's check-and-set. An answer that was lost, or a mismatch that the library's own
// repetition of the request may have caused, is looked into: it was this write if the next version has
// this write's revision.
func (s *Store) put(ctx context.Context, t secrets.Target, k *rotator.Keyring, version int64) (int64, error) {
	if t.SdkAppID > maxExact {
		return 0, fmt.Errorf("vault: the keyring of %s cannot be kept in Vault, which rounds numbers above %d: check the SdkAppId", t, int64(maxExact))
	}
	encoded, err := k.Encode()
	if err != nil {
		return 0, err
	}
	dec := json.NewDecoder(bytes.NewReader(encoded))
	dec.UseNumber()
	var data map[string]any
	if err := dec.Decode(&data); err != nil {
		return 0, fmt.Errorf("vault: encode the keyring of %s: %w", t, err)
	}
	err = s.call(ctx, "write", "data/"+s.path(t), "create and update", func(ctx context.Context) error {
		if _, err := s.checkMount(ctx); err != nil {
			return err
		}
		_, err := s.client.KVv2(s.mount).Put(ctx, s.path(t), data, api.WithCheckAndSet(int(version)))
		return err
	})
	if err == nil {
		return version + 1, nil
	}
	if definite(err) && !mismatch(err) {
		return 0, err
	}
	now, readErr := s.Read(ctx, t)
	switch {
	case readErr != nil:
		return 0, errors.Join(err, readErr)
	case now.Version == version:
		return 0, err
	case now.Version == version+1 && now.Keyring != nil && now.Keyring.Revision == k.Revision:
		return now.Version, nil
	}
	return 0, fmt.Errorf("%w (version %d is there, %d was read)", rotator.ErrConflict, now.Version, version)
}

// continued makes sure that a write replaced an earlier version of the same keyring. Vault numbers the
// versions of one that was deleted and made anew from one again, so its check-and-set does not tell. What
// was replaced by mistake is put back.
func (s *Store) continued(ctx context.Context, t secrets.Target, k *rotator.Keyring, version int64) error {
	got, err := s.Secret(ctx, t, version)
	if err != nil {
		return fmt.Errorf("read what the write replaced: %w", err)
	}
	was, err := rotator.DecodeKeyring(t, got.Content)
	if got.Content == nil || err != nil || k.Continues(was) {
		return nil
	}
	if was, err = was.Again().Revised(nil); err == nil {
		_, err = s.put(ctx, t, was, version+1)
	}
	if err != nil {
		return errors.Join(rotator.ErrAnotherLife, fmt.Errorf("put the new one back: %w", err))
	}
	return rotator.ErrAnotherLife
}

// Purge destroys the versions before the given one.
func (s *Store) Purge(ctx context.Context, t secrets.Target, version int64) error {
	var versions []int
	for v := max(1, version-purgeReach); v < version; v++ {
		versions = append(versions, int(v))
	}
	if len(versions) == 0 || s.single(ctx, t) {
		return nil
	}
	return s.call(ctx, "destroy older versions of", "destroy/"+s.path(t), "update", func(ctx context.Context) error {
		return s.client.KVv2(s.mount).Destroy(ctx, s.path(t), versions)
	})
}
