package tencent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/common"
	tcerr "github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/common/errors"
	"golang.org/x/sync/singleflight"

	"tiwkeyd/internal/private"
)

// Credential is what requests are signed with. Whatever prints it prints no part of it.
type Credential struct{ id, key, token string }

// NewCredential gives a Credential; token is empty but for temporary ones.
func NewCredential(secretID, secretKey, token string) Credential {
	return Credential{secretID, secretKey, token}
}

// Format hides the credential from every verb.
func (c Credential) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, "credential(hidden)") }

func (c Credential) same(o Credential) bool { return c == o }

// Credentials is where a Client gets its credential. String names the source.
type Credentials interface {
	Get(ctx context.Context) (Credential, error)
	// Forget says that Tencent did not accept used: the next Get asks the source again.
	Forget(used Credential)
	String() string
}

// SecretReader reads the fields of a secret in Vault, by its mount and path: secret/tencent.
type SecretReader func(ctx context.Context, path string) (map[string]any, error)

// keepFor is how long a credential is used before the source is asked again: temporary ones
// live two hours, and files and secrets change without notice.
const keepFor = 15 * time.Minute

// keepFailed is how long the others of many targets share the news that a source gave none.
const keepFailed = time.Second

// hung is when an answer of one of the SDK's providers is waited for no more.
const hung = time.Minute

// ParseCredentials reads TIWKEYD_TENCENT_CREDENTIALS:
//
//	auto (or empty)       env, else tke-oidc, else profile, and last cvm-role
//	env                   TENCENTCLOUD_SECRET_ID, TENCENTCLOUD_SECRET_KEY, TENCENTCLOUD_TOKEN
//	profile               the file of Tencent's SDKs: TENCENTCLOUD_CREDENTIALS_FILE, else ~/.tencentcloud/credentials
//	cvm-role              the role of the machine it runs on
//	tke-oidc              the role of the Kubernetes service account (TKE_… variables)
//	sts:ROLE_ARN          that role, assumed with the credential of env or profile
//	vault:MOUNT/PATH      fields secret_id, secret_key and, if any, token of a KV secret; the mount may have slashes
func ParseCredentials(spec string, env func(string) string, vault SecretReader) (Credentials, error) {
	return parseCredentials(spec, env, vault, newMetadata().fetch)
}

func parseCredentials(spec string, env func(string) string, vault SecretReader, machine fetch) (Credentials, error) {
	kind, arg, _ := strings.Cut(spec, ":")
	var f fetch
	switch kind {
	case "", "auto":
		f = firstOf(fromEnv(env), fromTKE(env), fromProfile(env), func(ctx context.Context) (Credential, error) {
			c, err := machine(ctx)
			if err != nil {
				err = fmt.Errorf("cvm-role, which auto tries last: %w", err)
			}
			return c, err
		})
	case "env":
		f = fromEnv(env)
	case "profile":
		f = fromProfile(env)
	case "cvm-role":
		f = machine
	case "tke-oidc":
		f = fromTKE(env)
	case "sts":
		if !strings.HasPrefix(arg, "qcs::cam::") {
			return nil, errors.New("after sts: comes the ARN of a role, qcs::cam::uin/…:roleName/…")
		}
		f = fromRole(firstOf(fromEnv(env), fromProfile(env)), arg)
	case "vault":
		mount, path, ok := strings.Cut(arg, "/")
		if !ok || mount == "" || path == "" {
			return nil, errors.New("after vault: come the KV v2 mount and the path, secret/tencent")
		}
		f = fromVault(vault, strings.Trim(arg, "/"))
	default:
		return nil, errors.New("it is none of auto, env, profile, cvm-role, tke-oidc, sts:ROLE_ARN, vault:MOUNT/PATH")
	}
	if (kind == "env" || kind == "profile" || kind == "cvm-role" || kind == "tke-oidc" || kind == "auto") && arg != "" {
		return nil, fmt.Errorf("%s takes nothing after a colon", kind)
	}
	if spec == "" {
		spec = "auto"
	}
	return &source{name: spec, fetch: f}, nil
}

// Static gives Credentials that never change.
func Static(c Credential) Credentials {
	return &source{name: "static", fetch: func(context.Context) (Credential, error) { return c, nil }}
}

type fetch func(ctx context.Context) (Credential, error)

// source keeps what a fetch gave for a while.
type source struct {
	name  string
	fetch fetch

	mu     sync.Mutex
	have   Credential
	at     time.Time
	failed error // of the last fetch
	tried  time.Time
}

func (s *source) String() string { return s.name }

func (s *source) Get(ctx context.Context) (Credential, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !s.at.IsZero() && time.Since(s.at) < keepFor:
		return s.have, nil
	case s.failed != nil && time.Since(s.tried) < keepFailed:
		return Credential{}, s.failed
	case ctx.Err() != nil: // it may have waited for others
		return Credential{}, ctx.Err()
	}
	c, err := s.fetch(ctx)
	if err == nil && (c.id == "" || c.key == "") {
		err = errors.New("the SecretId or the SecretKey is empty")
	}
	odd := func(r rune) bool { return r < ' ' || r > '~' }
	if err == nil && (strings.ContainsFunc(c.id+c.key, odd) || strings.TrimSpace(c.id) != c.id || strings.TrimSpace(c.key) != c.key) {
		err = errors.New("at an end of the SecretId or the SecretKey there is a space, or in it a line break or a character that is not ASCII: set it without")
	}
	if err != nil {
		if ctx.Err() == nil {
			s.failed, s.tried = err, time.Now()
		}
		return Credential{}, err
	}
	s.have, s.at, s.failed = c, time.Now(), nil
	return c, nil
}

func (s *source) Forget(used Credential) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.have.same(used) {
		s.at = time.Time{}
	}
}

func fromEnv(env func(string) string) fetch {
	return func(context.Context) (Credential, error) {
		c := Credential{env("TENCENTCLOUD_SECRET_ID"), env("TENCENTCLOUD_SECRET_KEY"), env("TENCENTCLOUD_TOKEN")}
		if c.id == "" || c.key == "" {
			return c, errors.New("TENCENTCLOUD_SECRET_ID and TENCENTCLOUD_SECRET_KEY are not both set")
		}
		return c, nil
	}
}

func fromTKE(env func(string) string) fetch {
	return func(ctx context.Context) (Credential, error) {
		if env("TKE_ROLE_ARN") == "" {
			return Credential{}, errors.New("TKE_ROLE_ARN is not set")
		}
		if path := env("TKE_WEB_IDENTITY_TOKEN_FILE"); path != "" { // which the SDK reads
			if _, err := private.ReadFile(path, maxProfile); err != nil {
				return Credential{}, fmt.Errorf("TKE_WEB_IDENTITY_TOKEN_FILE: %w", err)
			}
		}
		p, err := common.DefaultTkeOIDCRoleArnProvider()
		if err != nil {
			return Credential{}, err
		}
		return fromProvider(p)(ctx)
	}
}

func fromRole(base fetch, arn string) fetch {
	return func(ctx context.Context) (Credential, error) {
		c, err := base(ctx)
		if err != nil {
			return c, err
		}
		long := common.NewTokenCredential(c.id, c.key, c.token)
		return fromProvider(common.NewRoleArnProviderWithCredential(long, arn, "tiwkeyd", 7200))(ctx)
	}
}

func fromVault(read SecretReader, path string) fetch {
	return func(ctx context.Context) (Credential, error) {
		if read == nil {
			return Credential{}, errors.New("there is no connection to Vault")
		}
		fields, err := read(ctx, path)
		if err != nil {
			return Credential{}, err
		}
		text := func(name string) string { s, _ := fields[name].(string); return s }
		c := Credential{text("secret_id"), text("secret_key"), text("token")}
		if c.id == "" || c.key == "" {
			return c, fmt.Errorf("the secret %s lacks the fields secret_id and secret_key", path)
		}
		return c, nil
	}
}

// fromProvider asks one of the SDK's providers. They take no context, so the wait for one
// that hangs is left when ctx ends; the next fetch then waits for the same answer for a while,
// so that those that hang do not pile up. What it gives is read once: the SDK's own renewal
// would write to the standard logger.
func fromProvider(p common.Provider) fetch {
	var group singleflight.Group
	var current atomic.Pointer[time.Time] // when the call under way began
	return func(ctx context.Context) (Credential, error) {
		asked := group.DoChan("", func() (any, error) {
			began := time.Now()
			current.Store(&began)
			defer current.CompareAndSwap(&began, nil)
			return ask(p)
		})
		select {
		case r := <-asked:
			c, _ := r.Val.(Credential)
			return c, r.Err
		case <-ctx.Done():
			if began := current.Load(); began != nil && time.Since(*began) > hung {
				group.Forget("") // the next fetch asks anew
			}
			return Credential{}, ctx.Err()
		}
	}
}

// ask has one of the SDK's providers that breaks down cost an error, and not the process.
func ask(p common.Provider) (c Credential, err error) {
	defer func() {
		if recover() != nil { // which may hold what it was reading
			c, err = Credential{}, fmt.Errorf("the SDK's %T broke down on what it found", p)
		}
	}()
	got, err := p.GetCredential()
	if err != nil {
		return c, providerError(err)
	}
	id, key, token := got.GetCredential()
	return Credential{id, key, token}, nil
}

// providerError keeps of an SDK's error what cannot hold a credential: its messages about an
// answer that it does not understand quote the answer.
func providerError(err error) error {
	var sdk *tcerr.TencentCloudSDKError
	if !errors.As(err, &sdk) {
		return err
	}
	if strings.HasPrefix(sdk.Code, "ClientError") && sdk.Code != "ClientError.CredentialError" {
		return fmt.Errorf("%s: no usable answer came", sdk.Code)
	}
	text := sdk.Code + ": " + sdk.Message
	if sdk.RequestId != "" {
		text += "; RequestId " + sdk.RequestId
	}
	return errors.New(text)
}

func firstOf(fetches ...fetch) fetch {
	return func(ctx context.Context) (Credential, error) {
		var errs []error
		for _, f := range fetches {
			c, err := f(ctx)
			if err == nil {
				return c, nil
			}
			errs = append(errs, err)
		}
		return Credential{}, errors.Join(errs...)
	}
}
