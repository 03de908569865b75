package config

import (
	"fmt"
	"reflect"
	"strings"
)

// Variable documents one variable.
type Variable struct{ Name, Default, Meaning string }

var meanings = map[string]string{
	"TIWKEYD_TARGETS":             "what to serve: `1400000001,1400000002/online-record`; the service is `whiteboard-push` if none is named",
	"TIWKEYD_DISCOVER":            "`true`: also serve every keyring in the store; new ones are found within about 5 minutes, or with `SIGHUP`",
	"TIWKEYD_SCHEDULE":            "when to rotate: cron (five fields), `CRON_TZ=Zone …`, `@daily`, `@every 12h`; a run missed while down is made up at start, and one that the clocks leave out in spring right after; an hour that they show twice counts once",
	"TIWKEYD_SPLAY":               "spread the targets over this long after the schedule's time, the same for a target every time",
	"TIWKEYD_PROPAGATION":         "how late a receiver may see a change of the secret (Vault Agent: 5m); where it is set, it is written into each keyring that says less",
	"TIWKEYD_GRACE":               "how long the old key stays accepted; at least 10m, and no longer than `TIWKEYD_SCHEDULE` replaces 500 keys in",
	"TIWKEYD_KEY_LENGTH":          "characters of a new key, 32 to 64",
	"TIWKEYD_ATTEMPT_LIMIT":       "how long one new key is tried before it is rolled back",
	"TIWKEYD_RECONCILE":           "how often a settled target is looked at (drift, retirement)",
	"TIWKEYD_ON_DRIFT":            "when Tencent has a key that is not ours: `reassert` ours, `adopt` theirs, or only `alarm`",
	"TIWKEYD_STORE":               "`vault`, or `file:///absolute/path` for one machine",
	"TIWKEYD_VAULT_MOUNT":         "the KV version 2 mount",
	"TIWKEYD_VAULT_PREFIX":        "the folder of the keyrings in it",
	"TIWKEYD_VAULT_KEEP_VERSIONS": "`true`: do not destroy older versions, which hold retired keys",
	"TIWKEYD_TENCENT_SITE":        "the account's site: `intl` (`tiw.intl.tencentcloudapi.com`, `ap-singapore`) or `mainland` (`tiw.tencentcloudapi.com`, `ap-guangzhou`); by default `tiw.tencentcloudapi.com` and `ap-singapore`",
	"TIWKEYD_TENCENT_ENDPOINT":    "host or URL, if not the site's; plain `http://` for loopback addresses only",
	"TIWKEYD_TENCENT_REGION":      "if not the site's; each site has one region only",
	"TIWKEYD_TENCENT_CREDENTIALS": "`auto`, `env`, `profile`, `cvm-role`, `tke-oidc`, `sts:ROLE_ARN` or `vault:MOUNT/PATH` (fields `secret_id`, `secret_key`, `token`)",
	"TIWKEYD_RATE":                "requests a second to each of Tencent's APIs",
	"TIWKEYD_LOG_LEVEL":           "`debug`, `info`, `warn`, `error`",
	"TIWKEYD_LOG_FORMAT":          "`json` or `text`",
	"TIWKEYD_HTTP_ADDR":           "where `run` serves the status page, `/metrics`, `/healthz` and `/readyz`, to whoever can reach it; empty: nowhere",
	"TIWKEYD_HTTP_TOKEN":          "a secret of at least 24 characters: who enters it on the status page may have keys rotated there; empty: nobody may",
	"TIWKEYD_HTTP_URL":            "the status page's address where a proxy with TLS is before it: `https://keys.example`, or with the path that it takes away: `https://ops.example/tiw/`; its name is answered to, and the login's cookie is `Secure`",
}

// conventional are the variables of others' making that the program honours.
var conventional = []Variable{
	{"VAULT_ADDR", "https://127.0.0.1:8200", "Vault's address; `VAULT_CACERT`, `VAULT_NAMESPACE`, `VAULT_SKIP_VERIFY` … are honoured too"},
	{"VAULT_AUTH_METHOD", "", "`token`, `token-file`, `approle` or `kubernetes`; by default the one whose variables are set"},
	{"VAULT_AUTH_MOUNT", "", "where the auth engine is mounted, if not at its usual place"},
	{"VAULT_TOKEN", "", "a token; renewed while it can be"},
	{"VAULT_TOKEN_FILE", "", "a file with a token, read again whenever it changes"},
	{"VAULT_ROLE_ID", "", "AppRole; with `VAULT_SECRET_ID` or `VAULT_SECRET_ID_FILE`"},
	{"VAULT_K8S_ROLE", "", "Kubernetes role; the pod's token, or `VAULT_K8S_TOKEN_FILE`"},
	{"TENCENTCLOUD_SECRET_ID", "", "Tencent's API key; with `TENCENTCLOUD_SECRET_KEY`, and `TENCENTCLOUD_TOKEN` for a temporary one"},
}

// Variables lists every variable, in the order of the documentation.
func Variables() []Variable {
	var all []Variable
	for f := range reflect.TypeFor[raw]().Fields() {
		name, def, _ := strings.Cut(f.Tag.Get("env"), ", default=")
		all = append(all, Variable{name, def, meanings[name]})
	}
	return append(all, conventional...)
}

// Markdown is the table of the README.
func Markdown() string {
	var b strings.Builder
	b.WriteString("| variable | default | meaning |\n|---|---|---|\n")
	for _, v := range Variables() {
		def := ""
		if v.Default != "" {
			def = "`" + v.Default + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", v.Name, def, v.Meaning)
	}
	return b.String()
}

// Text is the list of `run --help`.
func Text() string {
	var b strings.Builder
	for _, v := range Variables() {
		def := ""
		if v.Default != "" {
			def = " (default " + v.Default + ")"
		}
		fmt.Fprintf(&b, "  %s%s\n      %s\n", v.Name, def, strings.ReplaceAll(v.Meaning, "`", ""))
	}
	return b.String()
}
