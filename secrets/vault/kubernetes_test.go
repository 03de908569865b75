package vault

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"tiwkeyd/secrets/storetest"
	"tiwkeyd/secrets/vault/vaulttest"
)

// podToken is a service account's token as a cluster would issue it. Vault reads its claims
// and has the cluster check the rest.
func podToken(nth int) string {
	part := func(v any) string {
		text, err := json.Marshal(v)
		if err != nil {
			panic(err)
		}
		return base64.RawURLEncoding.EncodeToString(text)
	}
	return part(map[string]any{"alg": "RS256", "typ": "JWT", "kid": fmt.Sprint(nth)}) + "." +
		part(map[string]any{"iss": "https://kubernetes.default.svc", "sub": "system:serviceaccount:tiw:tiwkeyd", "exp": time.Now().Add(time.Hour).Unix(),
			"iat": time.Now().Unix(), "nbf": time.Now().Add(-time.Minute).Unix(), "jti": fmt.Sprint("jti-", nth),
			"kubernetes.io": map[string]any{"namespace": "tiw", "serviceaccount": map[string]any{"name": "tiwkeyd", "uid": "uid-1"}}}) + "." +
		base64.RawURLEncoding.EncodeToString([]byte(strings.Repeat("signature", 28)))
}

// inCluster logs in with a pod's token, against a cluster that knows one token only: the
// pod's token file is read anew at each login.
func inCluster(t *testing.T, v *vaulttest.Server) {
	var good atomic.Value
	var reviews atomic.Int32
	cluster := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reviews.Add(1)
		var review struct{ Spec struct{ Token string } }
		_ = json.NewDecoder(r.Body).Decode(&review)
		status := map[string]any{"authenticated": review.Spec.Token == good.Load(),
			"user": map[string]any{"username": "system:serviceaccount:tiw:tiwkeyd", "uid": "uid-1"}}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(map[string]any{"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status})
	}))
	defer cluster.Close()
	root := v.Client(v.Token)
	if err := root.Sys().EnableAuthWithOptions("cluster", &api.EnableAuthOptions{Type: "kubernetes"}); err != nil {
		t.Fatal(err)
	}
	for path, data := range map[string]map[string]any{
		"auth/cluster/config": {"kubernetes_host": cluster.URL, "disable_local_ca_jwt": true, "kubernetes_ca_cert": ""},
		"auth/cluster/role/tiwkeyd": {"bound_service_account_names": "tiwkeyd", "bound_service_account_namespaces": "tiw",
			"token_policies": "tiwkeyd", "token_ttl": "3s", "token_max_ttl": "6s"},
	} {
		if _, err := root.Logical().Write(path, data); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(t.TempDir(), "token")
	issue := func(nth int) string {
		t.Helper()
		token := podToken(nth)
		if err := os.WriteFile(path, []byte(token), 0o600); err != nil {
			t.Fatal(err)
		}
		good.Store(token)
		return token
	}
	first := issue(1)
	s, log := open(t, v.Addr, map[string]string{"VAULT_K8S_ROLE": "tiwkeyd", "VAULT_K8S_TOKEN_FILE": path, "VAULT_AUTH_MOUNT": "cluster"})
	target := storetest.Target()
	if _, err := s.Write(t.Context(), target, storetest.Keyring(target, 1), 0); err != nil {
		t.Fatal(err)
	}
	token := s.client.Token()
	second := issue(2) // the kubelet replaces it in time
	// Vault's token lives six seconds at most: renewed while it can be, then there is a login.
	await(t, "another login", func() bool {
		if _, err := s.Read(t.Context(), target); err != nil {
			t.Fatalf("while the token was kept good: %v", err)
		}
		return s.client.Token() != token
	})
	if n := reviews.Load(); n != 2 {
		t.Errorf("%d logins", n)
	}
	good.Store("revoked")
	v.Revoke(s.client.Token())
	_, err := s.Read(t.Context(), target)
	if err == nil || !strings.Contains(err.Error(), "not valid any more") {
		t.Errorf("with a pod's token that the cluster does not know: %v", err)
	}
	shows(t, log, first, err)
	shows(t, log, second, err)
}
