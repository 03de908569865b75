// Package eso tests external-secret.yaml with the External Secrets Operator's own code: its
// API types, and its Vault provider with a real Vault. It is a module of its own because the
// operator depends on half of Kubernetes.
package eso

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	esv1 "github.com/external-secrets/external-secrets/apis/externalsecrets/v1"
	provider "github.com/external-secrets/external-secrets/pkg/provider/vault"
	"github.com/hashicorp/vault/api"
	"sigs.k8s.io/yaml"

	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
	"tiwkeyd/secrets/vault"
	"tiwkeyd/secrets/vault/vaulttest"
)

const (
	namespace = "tiw"
	account   = "tiw-receiver"
)

// manifest reads external-secret.yaml into the operator's types. A field that they do not
// have, or that is there twice, is an error.
func manifest(t *testing.T) (store esv1.SecretStore, secret esv1.ExternalSecret) {
	t.Helper()
	raw, err := os.ReadFile("../external-secret.yaml")
	if err != nil {
		t.Fatal(err)
	}
	parts := bytes.Split(raw, []byte("\n---\n"))
	if len(parts) != 2 {
		t.Fatalf("it has %d documents", len(parts))
	}
	for i, into := range []any{&store, &secret} {
		if err := yaml.UnmarshalStrict(parts[i], into); err != nil {
			t.Fatal(err)
		}
	}
	return store, secret
}

func TestManifest(t *testing.T) {
	store, secret := manifest(t)
	version := esv1.SchemeGroupVersion.String()
	if store.APIVersion != version || store.Kind != esv1.SecretStoreKind {
		t.Errorf("the first is %s %s", store.APIVersion, store.Kind)
	}
	if secret.APIVersion != version || secret.Kind != esv1.ExtSecretKind {
		t.Errorf("the second is %s %s", secret.APIVersion, secret.Kind)
	}
	if secret.Spec.SecretStoreRef.Name != store.Name {
		t.Errorf("it refers to the store %q; there is %q", secret.Spec.SecretStoreRef.Name, store.Name)
	}
	if got := secret.Spec.RefreshInterval; got == nil || got.Duration != time.Minute {
		t.Errorf("it is refreshed every %v", got)
	}
	if n := len(secret.Spec.Data); n != 1 || secret.Spec.Data[0].SecretKey != "keyring.json" {
		t.Errorf("it has %d entries, where keyring.json is the one", n)
	}
	if _, err := new(provider.Provider).ValidateStore(&store); err != nil {
		t.Errorf("the operator refuses the store: %v", err)
	}
}

// TestProvider has the operator's provider log in to a real Vault with the manifest's
// service account, and fetch what the daemon's own code wrote.
func TestProvider(t *testing.T) {
	store, secret := manifest(t)
	v := vaulttest.Start(t)
	cluster(t, v)
	store.Spec.Provider.Vault.Server = v.Addr
	want := write(t, v)

	p := &provider.Provider{NewVaultClient: provider.NewVaultClient}
	client, err := p.NewClient(t.Context(), &store, nil, namespace)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close(t.Context()) }()
	got, err := client.GetSecret(t.Context(), secret.Spec.Data[0].RemoteRef)
	if err != nil {
		t.Fatal(err)
	}
	k, err := rotator.DecodeKeyring(want.Target, got)
	if err != nil {
		t.Fatalf("keyring.json: %v", err)
	}
	if !k.CallbackKey().Equal(want.CallbackKey()) {
		t.Error("keyring.json has another current key")
	}
	var file struct{ Accept []string }
	if err := json.Unmarshal(got, &file); err != nil || len(file.Accept) != 1 || file.Accept[0] != want.CallbackKey().Reveal() {
		t.Errorf("accept has %d keys (%v), where it must have the one", len(file.Accept), err)
	}
}

// write puts a keyring into Vault as the daemon does.
func write(t *testing.T, v *vaulttest.Server) *rotator.Keyring {
	t.Helper()
	key, err := secrets.GenerateKey(nil, secrets.DefaultKeyLength)
	if err != nil {
		t.Fatal(err)
	}
	k := &rotator.Keyring{Target: secrets.Target{SdkAppID: 1400000001, Service: secrets.WhiteboardPush},
		Keys: []rotator.Entry{{Key: key, State: rotator.Current, CreatedAt: time.Now()}}}
	t.Setenv("VAULT_ADDR", v.Addr)
	login, err := vault.LoginFromEnv(func(name string) string { return map[string]string{"VAULT_TOKEN": v.Token}[name] })
	if err != nil {
		t.Fatal(err)
	}
	s, err := vault.New(vault.Options{Mount: "secret", Prefix: "tiw", Login: login})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Write(t.Context(), k.Target, k, 0); err != nil {
		t.Fatal(err)
	}
	return k
}

// cluster is as much of Kubernetes as takes part: it issues the service account's token to
// the operator, and confirms it to Vault.
func cluster(t *testing.T, v *vaulttest.Server) {
	t.Helper()
	token := serviceAccountToken()
	user := fmt.Sprintf("system:serviceaccount:%s:%s", namespace, account)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var answer map[string]any
		switch r.URL.Path {
		case fmt.Sprintf("/api/v1/namespaces/%s/serviceaccounts/%s/token", namespace, account):
			answer = map[string]any{"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
				"status": map[string]any{"token": token, "expirationTimestamp": time.Now().Add(time.Hour).Format(time.RFC3339)}}
		case "/apis/authentication.k8s.io/v1/tokenreviews":
			var review struct{ Spec struct{ Token string } }
			_ = json.NewDecoder(r.Body).Decode(&review)
			answer = map[string]any{"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
				"status": map[string]any{"authenticated": review.Spec.Token == token, "user": map[string]any{"username": user, "uid": "uid-1"}}}
		default:
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(answer)
	}))
	t.Cleanup(server.Close)

	config := filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf(`{"apiVersion":"v1","kind":"Config","clusters":[{"name":"c","cluster":{"server":%q}}],
		"contexts":[{"name":"c","context":{"cluster":"c"}}],"current-context":"c"}`, server.URL)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("KUBECONFIG", config)

	v.Policy("receiver", `path "secret/data/tiw/*" { capabilities = ["read"] }`)
	root := v.Client(v.Token)
	if err := root.Sys().EnableAuthWithOptions("kubernetes", &api.EnableAuthOptions{Type: "kubernetes"}); err != nil {
		t.Fatal(err)
	}
	for path, data := range map[string]map[string]any{
		"auth/kubernetes/config": {"kubernetes_host": server.URL, "disable_local_ca_jwt": true, "kubernetes_ca_cert": ""},
		"auth/kubernetes/role/" + account: {"bound_service_account_names": account, "bound_service_account_namespaces": namespace,
			"token_policies": "receiver", "token_ttl": "1h"},
	} {
		if _, err := root.Logical().Write(path, data); err != nil {
			t.Fatal(err)
		}
	}
}

// serviceAccountToken has the claims that Vault reads; the signature is the cluster's affair.
func serviceAccountToken() string {
	part := func(v any) string {
		text, err := json.Marshal(v)
		if err != nil {
			panic(err) // it is made of strings and numbers
		}
		return base64.RawURLEncoding.EncodeToString(text)
	}
	now := time.Now()
	return part(map[string]any{"alg": "RS256", "typ": "JWT"}) + "." +
		part(map[string]any{"iss": "https://kubernetes.default.svc", "sub": fmt.Sprintf("system:serviceaccount:%s:%s", namespace, account),
			"exp": now.Add(time.Hour).Unix(), "iat": now.Unix(), "nbf": now.Add(-time.Minute).Unix(),
			"kubernetes.io": map[string]any{"namespace": namespace, "serviceaccount": map[string]any{"name": account, "uid": "uid-1"}}}) + "." +
		base64.RawURLEncoding.EncodeToString([]byte(strings.Repeat("signature", 28)))
}
