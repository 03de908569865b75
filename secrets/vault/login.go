package vault

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/hashicorp/vault/api"
	"github.com/hashicorp/vault/api/auth/approle"
	"github.com/hashicorp/vault/api/auth/kubernetes"

	"tiwkeyd/internal/private"
)

// Method is a way to come by a token.
type Method string

// The methods, as VAULT_AUTH_METHOD names them.
const (
	Token      Method = "token"      // VAULT_TOKEN
	TokenFile  Method = "token-file" // VAULT_TOKEN_FILE, read again when it changes
	AppRole    Method = "approle"    // VAULT_ROLE_ID with VAULT_SECRET_ID or VAULT_SECRET_ID_FILE
	Kubernetes Method = "kubernetes" // VAULT_K8S_ROLE with the pod's service account
)

// Login is how to come by a token. It holds no secret: those are read when they are needed.
type Login struct {
	Method Method
	Mount  string // of the auth engine; "" is the method's usual one
	env    func(string) string
}

// methodVariables names what each method needs; "|" separates alternatives.
var methodVariables = []struct {
	method Method
	needs  []string
}{
	{Token, []string{"VAULT_TOKEN"}},
	{TokenFile, []string{"VAULT_TOKEN_FILE"}},
	{AppRole, []string{"VAULT_ROLE_ID", "VAULT_SECRET_ID|VAULT_SECRET_ID_FILE"}},
	{Kubernetes, []string{"VAULT_K8S_ROLE"}},
}

// LoginFromEnv chooses the method: the one that VAULT_AUTH_METHOD names, else the only one
// whose variables are there.
func LoginFromEnv(env func(string) string) (Login, error) {
	l := Login{Method: Method(env("VAULT_AUTH_METHOD")), Mount: strings.Trim(env("VAULT_AUTH_MOUNT"), "/"), env: env}
	var complete []string
	for _, m := range methodVariables {
		missing := missingOf(m.needs, env)
		if m.method == l.Method {
			if len(missing) > 0 {
				return l, fmt.Errorf("VAULT_AUTH_METHOD is %s, but %s is not set", l.Method, strings.Join(missing, " and "))
			}
			return l, nil
		}
		if len(missing) == 0 {
			complete = append(complete, string(m.method))
		}
	}
	switch {
	case l.Method != "":
		return l, fmt.Errorf("VAULT_AUTH_METHOD %q is none of token, token-file, approle, kubernetes", l.Method)
	case len(complete) == 0:
		return l, errors.New("there is no way to log in to Vault: set VAULT_TOKEN, VAULT_TOKEN_FILE, VAULT_ROLE_ID with VAULT_SECRET_ID or VAULT_SECRET_ID_FILE, or VAULT_K8S_ROLE")
	case len(complete) > 1:
		return l, fmt.Errorf("there are several ways to log in to Vault (%s): choose with VAULT_AUTH_METHOD, or unset what is not meant", strings.Join(complete, ", "))
	}
	l.Method = Method(complete[0])
	return l, nil
}

func missingOf(needs []string, env func(string) string) []string {
	var missing []string
	for _, need := range needs {
		alternatives := strings.Split(need, "|")
		if !slices.ContainsFunc(alternatives, func(name string) bool { return env(name) != "" }) {
			missing = append(missing, strings.Join(alternatives, " or "))
		}
	}
	return missing
}

// logsIn reports whether the method gets its token from Vault itself.
func (l Login) logsIn() bool { return l.Method == AppRole || l.Method == Kubernetes }

// maxToken is the largest file that is read for a token; a batch token has a few hundred bytes.
const maxToken = 64 << 10

// given reads the token of the methods that are handed one.
func (l Login) given() (string, error) {
	if l.Method == Token {
		return l.env("VAULT_TOKEN"), nil
	}
	return fromFile("VAULT_TOKEN_FILE", l.env("VAULT_TOKEN_FILE"))
}

// fromFile reads the secret in a file that a variable names.
func fromFile(name, path string) (string, error) {
	content, err := private.ReadFile(path, maxToken)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", name, err)
	}
	text := strings.TrimSpace(string(content))
	if text == "" {
		return "", fmt.Errorf("%s %s is empty", name, path)
	}
	return text, nil
}

// podTokenFile is where a pod finds its service account's token unless told otherwise.
const podTokenFile = "/var/run/secrets/kubernetes.io/serviceaccount/token"

// proof is the secret that a login shows. It is read anew each time: a secret id or a pod's
// token may have been replaced since.
func (l Login) proof() (string, error) {
	switch path := l.env("VAULT_SECRET_ID_FILE"); {
	case l.Method == Kubernetes:
		return fromFile("VAULT_K8S_TOKEN_FILE", cmp.Or(l.env("VAULT_K8S_TOKEN_FILE"), podTokenFile))
	case path != "":
		return fromFile("VAULT_SECRET_ID_FILE", path)
	}
	return l.env("VAULT_SECRET_ID"), nil
}

// auth logs in.
func (l Login) auth(ctx context.Context, client *api.Client, proof string) (*api.Secret, error) {
	var method api.AuthMethod
	var err error
	switch l.Method {
	case AppRole:
		secret := &approle.SecretID{FromString: proof}
		var options []approle.LoginOption
		if l.Mount != "" {
			options = append(options, approle.WithMountPath(l.Mount))
		}
		method, err = approle.NewAppRoleAuth(l.env("VAULT_ROLE_ID"), secret, options...)
	case Kubernetes:
		options := []kubernetes.LoginOption{kubernetes.WithServiceAccountToken(proof)}
		if l.Mount != "" {
			options = append(options, kubernetes.WithMountPath(l.Mount))
		}
		method, err = kubernetes.NewKubernetesAuth(l.env("VAULT_K8S_ROLE"), options...)
	}
	if err != nil {
		return nil, err
	}
	return client.Auth().Login(ctx, method)
}

// advice is what the reader of a failed login's error can do about it.
func (l Login) advice(err error) string {
	code := status(err)
	switch {
	case code == 0:
		return "check VAULT_ADDR, VAULT_CACERT and that Vault runs"
	case code == http.StatusServiceUnavailable:
		return "Vault is sealed or has no active node: unseal it"
	case code == http.StatusNotFound || strings.Contains(err.Error(), "no handler for route"):
		return fmt.Sprintf("enable the %s auth engine, or set VAULT_AUTH_MOUNT to where it is", l.Method)
	case l.Method == AppRole && code == http.StatusForbidden:
		return "Vault locks a role for a while after failed logins, by whomever: see `vault read sys/locked-users`, and unlock with `vault write -f sys/locked-users/ACCESSOR/unlock/ROLE_ID`; " +
			"else check VAULT_AUTH_MOUNT, and the addresses that the role is bound to"
	case l.Method == AppRole:
		return "check VAULT_ROLE_ID, and make a new secret id for VAULT_SECRET_ID or VAULT_SECRET_ID_FILE: it may be mistyped, have expired or be used up; VAULT_AUTH_MOUNT if the engine is not at approle"
	case l.Method == Kubernetes:
		return "check VAULT_K8S_ROLE, that the role is bound to this pod's service account and namespace, and VAULT_AUTH_MOUNT if the engine is not at kubernetes"
	}
	return ""
}
