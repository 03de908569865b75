package vault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/hashicorp/vault/api"
)

// mountWithin is the mount that a path leads into, where the path of a mount was to be.
type mountWithin string

func (m mountWithin) Error() string {
	return fmt.Sprintf("it is no mount, but a path in the mount %q", string(m))
}

// Is has it be one that is not there, too.
func (mountWithin) Is(target error) bool { return target == ErrNoMount }

// mountInfo is what Vault tells of a mount.
type mountInfo struct {
	path    string // "team/kv"
	version int    // of the KV engine; 0: it is another engine
	guessed bool   // Vault does not tell
}

// mountOf asks Vault for the mount that a path is in. It tells of a mount to whoever may do anything in
// it; to others it denies the request, whether or not there is one. No info: the answer has none.
func (s *Store) mountOf(ctx context.Context, path string) (*mountInfo, error) {
	got, err := s.client.Logical().ReadWithContext(ctx, "sys/internal/ui/mounts/"+path)
	if err != nil || got == nil {
		return nil, err
	}
	at, _ := got.Data["path"].(string)
	options, _ := got.Data["options"].(map[string]any)
	info := &mountInfo{path: strings.Trim(at, "/")}
	switch kind, _ := got.Data["type"].(string); {
	case kind == "kv" && options["version"] == "2":
		info.version = 2
	case kind == "kv":
		info.version = 1
	}
	return info, nil
}

// checkMount makes sure that the mount is KV version 2: on version 1 a write would succeed,
// in a form that no receiver reads and without check-and-set. It is not known where Vault
// does not tell.
func (s *Store) checkMount(ctx context.Context) (known bool, err error) {
	if s.checked.Load() {
		return true, nil
	}
	info, err := s.mountOf(ctx, s.mount)
	var res *api.ResponseError
	switch {
	case errors.As(err, &res) && res.StatusCode == http.StatusForbidden:
		// This token may do nothing there, or there is no such mount. The request itself will show which.
		return false, nil
	case err != nil:
		return false, err
	case info == nil:
		return false, nil
	case info.path != "" && info.path != s.mount:
		return false, mountWithin(info.path)
	case info.version != 2:
		return false, ErrNotKV2
	}
	s.checked.Store(true)
	return true, nil
}

// place is where a secret of any KV engine is: its mount, and the path in that. Vault knows where the mount
// ends, which may have slashes itself. Where it does not tell, the first slash ends it.
func (s *Store) place(ctx context.Context, full string) (at mountInfo, path string, err error) {
	mount, rest, _ := strings.Cut(full, "/")
	at = mountInfo{mount, 2, true}
	err = s.callIn(ctx, mount, "find the mount of", rest, "read", func(ctx context.Context) error {
		info, err := s.mountOf(ctx, full)
		if err == nil && info != nil && strings.HasPrefix(full, info.path+"/") {
			at = *info
		}
		return err
	})
	var res *api.ResponseError
	if errors.As(err, &res) && (res.StatusCode == http.StatusForbidden || res.StatusCode == http.StatusNotFound) && !errors.Is(err, errNoLogin) {
		err = nil // reading it will tell; the answer may be a gateway's that lets only some paths through
	}
	return at, strings.TrimPrefix(full, at.path+"/"), err
}

// ReadSecret gives the fields of any secret in a KV engine, such as the credential for Tencent, by its
// mount and path, as in secret/tencent.
func (s *Store) ReadSecret(ctx context.Context, full string) (map[string]any, error) {
	at, path, err := s.place(ctx, full)
	if err != nil {
		return nil, err
	}
	asked, get := "data/"+path, s.client.KVv2(at.path).Get
	switch at.version {
	case 0:
		return nil, fmt.Errorf("vault: the mount %s, where %s would be, is no KV engine", at.path, full)
	case 1:
		asked, get = path, s.client.KVv1(at.path).Get
	}
	var got *api.KVSecret
	err = s.callIn(ctx, at.path, "read", asked, "read", func(ctx context.Context) (err error) {
		got, err = get(ctx, path)
		return err
	})
	var failed *Error
	switch {
	case errors.Is(err, api.ErrSecretNotFound) || (err == nil && got.Data == nil):
		if at.guessed {
			return nil, fmt.Errorf("vault: there is no secret %s in the mount %s; where it is in another, Vault does not tell this token so: give its policy the capability read on it", full, at.path)
		}
		return nil, fmt.Errorf("vault: there is no secret %s in the mount %s", full, at.path)
	case at.guessed && Denied(err) && !errors.Is(err, errNoLogin) && errors.As(err, &failed):
		failed.Advice = fmt.Sprintf("the token is not valid any more, or may do nothing in the mount where %s is; if that is %s, its policy needs the capability read on %q", full, at.path, at.path+"/"+asked)
	}
	if err != nil {
		return nil, err
	}
	return got.Data, nil
}

// NeedToRead is what reading such a secret needs.
func (s *Store) NeedToRead(ctx context.Context, full string) (Need, error) {
	at, path, err := s.place(ctx, full)
	if at.version == 2 {
		path = "data/" + path
	}
	rule := at.path + "/" + path
	n := need(rule, rule, "read")
	n.Guessed = at.guessed
	return n, err
}
