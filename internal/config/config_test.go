package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
	"tiwkeyd/secrets/vault"
)

// good is enough to start with.
func good(more ...string) []string {
	return append([]string{"TIWKEYD_TARGETS=1400000001,1400000002/online-record", "VAULT_TOKEN=CANARYtoken", "HOME=/nowhere"}, more...)
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	c, err := Load(good())
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Targets) != 2 || c.Targets[0].Service != secrets.WhiteboardPush || c.Policy.KeyLength != 64 || c.Policy.OnDrift != rotator.Reassert ||
		c.Policy.Propagation.Minutes() != 6 || c.Policy.Grace.Hours() != 24 || c.Policy.AttemptLimit.Hours() != 1 || c.Policy.Reconcile.Minutes() != 10 ||
		c.Policy.Timing != rotator.StandardTiming() || c.FileStore != "" || c.Login.Method != vault.Token || c.Rate != 20 || !c.LogJSON || c.HTTPAddr != "127.0.0.1:9469" {
		t.Errorf("%+v", c)
	}
	c, err = Load([]string{"TIWKEYD_TARGETS=1", "TIWKEYD_STORE=file:///var/lib/tiwkeyd/", "TIWKEYD_HTTP_ADDR="})
	if err != nil || c.FileStore != "/var/lib/tiwkeyd" || c.HTTPAddr != "" {
		t.Errorf("the file store wants %v of Vault, %v", c, err)
	}
}

// TestPropagationSet: whether somebody said how late receivers may be.
func TestPropagationSet(t *testing.T) {
	t.Parallel()
	for set, want := range map[string]bool{"TIWKEYD_GRACE=1h": false, "TIWKEYD_PROPAGATION=0": true, "TIWKEYD_PROPAGATION=6m": true} {
		c, err := Load(good(set))
		if err != nil || c.Policy.PropagationSet != want {
			t.Errorf("%s: %v", set, err)
		}
	}
}

// TestBadInputs has one mistake for each row; its variable must be named.
func TestBadInputs(t *testing.T) {
	t.Parallel()
	for _, r := range []struct{ set, want string }{
		{"TIWKEYD_TARGETS=", "is empty"},
		{"TIWKEYD_TARGETS= ,", "empty entry"},
		{"TIWKEYD_TARGETS=7,", `"7," has an empty entry: there is a comma too many`},
		{"TIWKEYD_TARGETS=7,,8", "empty entry"},
		{"TIWKEYD_TARGETS=,7", "empty entry"},
		{"TIWKEYD_TARGETS=abc", `"abc" is not a whole number`},
		{"TIWKEYD_TARGETS=0", "not a positive number"},
		{"TIWKEYD_TARGETS=-5", "not a positive number"},
		{"TIWKEYD_TARGETS=9223372036854775808", "not a whole number"},
		{"TIWKEYD_TARGETS=1.5", "not a whole number"},
		{"TIWKEYD_TARGETS=1/recording", `"recording" is unknown; the services are whiteboard-push`},
		{"TIWKEYD_TARGETS=1/", "unknown"},
		{"TIWKEYD_TARGETS=1,1/whiteboard-push", "twice"},
		{"TIWKEYD_SCHEDULE=", "TIWKEYD_SCHEDULE"},
		{"TIWKEYD_SCHEDULE=whenever", "TIWKEYD_SCHEDULE"},
		{"TIWKEYD_SCHEDULE=0 0 30 2 *", "never comes"},
		{"TIWKEYD_SCHEDULE=@every 5m", "TIWKEYD_PROPAGATION"},
		{"TIWKEYD_SCHEDULE=* * * * *", "comes every 1m0s"},
		{"TIWKEYD_SPLAY=x", "not a duration"},
		{"TIWKEYD_SPLAY=-1s", "outside"},
		{"TIWKEYD_PROPAGATION=6", "not a duration"},
		{"TIWKEYD_PROPAGATION=-1s", "outside"},
		{"TIWKEYD_PROPAGATION=25h", "outside"},
		{"TIWKEYD_GRACE=9m", "outside 10m0s"},
		{"TIWKEYD_GRACE=forever", "not a duration"},
		{"TIWKEYD_KEY_LENGTH=31", "outside 32 to 64"},
		{"TIWKEYD_KEY_LENGTH=65", "outside 32 to 64"},
		{"TIWKEYD_KEY_LENGTH=40.5", "not a whole number"},
		{"TIWKEYD_KEY_LENGTH=long", "not a whole number"},
		{"TIWKEYD_ATTEMPT_LIMIT=30s", "outside"},
		{"TIWKEYD_RECONCILE=1s", "outside"},
		{"TIWKEYD_ON_DRIFT=ignore", "none of reassert, adopt, alarm"},
		{"TIWKEYD_STORE=redis", "neither vault nor file"},
		{"TIWKEYD_STORE=file://relative/path", "neither vault nor file"},
		{"TIWKEYD_STORE=file:///", "neither vault nor file"},
		{"TIWKEYD_VAULT_MOUNT=", "not a path in Vault"},
		{"TIWKEYD_VAULT_PREFIX=a/../b", "not a path in Vault"},
		{"TIWKEYD_VAULT_PREFIX=a b", "not a path in Vault"},
		{"TIWKEYD_VAULT_PREFIX=../b", "not a path in Vault"},
		{"TIWKEYD_VAULT_PREFIX=a?b", "not a path in Vault"},
		{"TIWKEYD_VAULT_PREFIX=a%2fb", "not a path in Vault"},
		{"TIWKEYD_VAULT_MOUNT=a+b", "not a path in Vault"},
		{"TIWKEYD_SCHEDULE=@every 6m", "comes every 6m0s"},
		{"TIWKEYD_GRACE=12100h", `TIWKEYD_SCHEDULE: "0 3 * * *" replaces more than 500 keys within TIWKEYD_GRACE (12100h)`},
		{"TIWKEYD_STORE=/var/lib/tiwkeyd", "neither vault nor file"},
		{"TIWKEYD_STORE=http:///var/lib/tiwkeyd", "neither vault nor file"},
		{"TIWKEYD_RATE=1e9", "outside"},
		{"TIWKEYD_VAULT_KEEP_VERSIONS=maybe", "none of true, false"},
		{"TIWKEYD_TENCENT_ENDPOINT=http://tiw.tencentcloudapi.com", "https://"},
		{"TIWKEYD_TENCENT_ENDPOINT=http://10.0.0.1:80", "https://"},
		{"TIWKEYD_TENCENT_ENDPOINT=ftp://host", "scheme"},
		{"TIWKEYD_TENCENT_ENDPOINT=https://user:CANARYpw@host", "neither a host nor a URL"},
		{"TIWKEYD_TENCENT_ENDPOINT=https://host/path", "neither a host nor a URL"},
		{"TIWKEYD_TENCENT_SITE=china", "neither intl nor mainland"},
		{"TIWKEYD_TARGETS=7/ppt-check", "of the mainland site only"},
		{"TIWKEYD_TENCENT_REGION=a b", "not the name of a region"},
		{"TIWKEYD_TENCENT_CREDENTIALS=stolen", "none of auto"},
		{"TIWKEYD_TENCENT_CREDENTIALS=vault:secret", "KV v2 mount"},
		{"TIWKEYD_TENCENT_CREDENTIALS=sts:role", "ARN"},
		{"TIWKEYD_RATE=0", "outside"},
		{"TIWKEYD_RATE=fast", "not a number"},
		{"TIWKEYD_RATE=NaN", "not a number"},
		{"TIWKEYD_LOG_LEVEL=loud", "none of debug"},
		{"TIWKEYD_LOG_FORMAT=xml", "none of json, text"},
		{"VAULT_ADDR=https://user:CANARYpw@vault:8200", "VAULT_ADDR: it holds a user name or password"},
		{"VAULT_ADDR=https://user:CANARYpw@vault:82 00", "VAULT_ADDR: it is not a URL"},
		{"VAULT_AGENT_ADDR=http://user:CANARYpw@127.0.0.1:8100", "VAULT_AGENT_ADDR: it holds a user name or password"},
		{"VAULT_ADDR=vault:8200", "VAULT_ADDR: it is not a URL"},
		{"VAULT_ADDR=http://vault:99999", `VAULT_ADDR: its port "99999" is not a number from 1 to 65535`},
		{"VAULT_ADDR=http://u:CANARYpw@:8200", "VAULT_ADDR: it holds a user name or password"},
		{"VAULT_ADDR=https://:8200", "VAULT_ADDR: the host is missing"},
		{"VAULT_ADDR=unix://", "VAULT_ADDR: the path of the socket is missing"},
		{"VAULT_AGENT_ADDR=http://agent:0", `VAULT_AGENT_ADDR: its port "0"`},
		{"TIWKEYD_TENCENT_ENDPOINT=https://tiw.example:99999", "TIWKEYD_TENCENT_ENDPOINT: the endpoint: its port"},
		{"TIWKEYD_TENCENT_ENDPOINT=tiw.example:", "TIWKEYD_TENCENT_ENDPOINT: the endpoint: there is no port"},
		{"TIWKEYD_HTTP_URL=https://keys.example:99999", "TIWKEYD_HTTP_URL: its port"},
		{"TIWKEYD_HTTP_ADDR=unix:/x", `TIWKEYD_HTTP_ADDR: "unix:/x" is not an address of the form HOST:PORT`},
		{"TIWKEYD_HTTP_ADDR=127.0.0.1:-1", `its port "-1"`},
		{"TIWKEYD_HTTP_ADDR=:80/metrics", "HOST:PORT"},
		{"TIWKEYD_HTTP_ADDR=300.0.0.1:80", "neither an IP address nor a name"},
		{"TIWKEYD_HTTP_ADDR=9469", "HOST:PORT"},
		{"TIWKEYD_HTTP_ADDR=127.0.0.1", "HOST:PORT"},
		{"TIWKEYD_HTTP_ADDR=127.0.0.1:http", "HOST:PORT"},
		{"TIWKEYD_HTTP_ADDR=127.0.0.1:65536", "HOST:PORT"},
		{"TIWKEYD_HTTP_ADDR=http://127.0.0.1:9469", "HOST:PORT"},
		{"TIWKEYD_HTTP_TOKEN=CANARY-short", "24 to 1000"},
		{"TIWKEYD_HTTP_TOKEN=CANARY" + strings.Repeat("y", 995), "24 to 1000"},
		{"TIWKEYD_HTTP_TOKEN=CANARY with spaces in the token", "neither an ASCII letter"},
		{"TIWKEYD_HTTP_TOKEN=CANARY-ends-in-a-line-break\n", "neither an ASCII letter"},
		{"TIWKEYD_HTTP_TOKEN=CANARY-größer-als-vierundzwanzig", "neither an ASCII letter"},
		{"TENCENTCLOUD_SECRET_ID=CANARYid\n", "TENCENTCLOUD_SECRET_ID: there is a space"},
		{"TENCENTCLOUD_SECRET_KEY=CANARYkey ", "TENCENTCLOUD_SECRET_KEY: there is a space"},
		{"TENCENTCLOUD_TOKEN=\ufeffCANARYtoken", "TENCENTCLOUD_TOKEN: there is a space"},
		{"VAULT_TOKEN=CANARYtoken\r\n", "VAULT_TOKEN: there is a space"},
		{"VAULT_SECRET_ID= CANARYid", "VAULT_SECRET_ID: there is a space"},
		{"VAULT_ROLE_ID=CANARYrole\t", "VAULT_ROLE_ID: there is a space"},
		{"VAULT_NAMESPACE=team \n", "VAULT_NAMESPACE: there is a space"},
		{"TIWKEYD_HTTP_URL=keys.example", "https://HOST"},
		{"TIWKEYD_HTTP_URL=https://", "https://HOST"},
		{"TIWKEYD_HTTP_URL=https://:443", "https://HOST"},
		{"TIWKEYD_HTTP_URL=ftp://keys.example", "https://HOST"},
		{"TIWKEYD_HTTP_URL=https://u:CANARYpw@keys.example", "https://HOST"},
		{"TIWKEYD_HTTP_URL=https://keys.example?x", "https://HOST"},
		{"TIWKEYD_HTTP_URL=https://keys.example/#x", "https://HOST"},
		{"TIWKEYD_STORE=https://user:CANARYpw@vault:8200", "neither vault nor file"},
		{"TIWKEYD_HTTP_ADDR=http://user:CANARYpw@127.0.0.1:9469", "HOST:PORT"},
		{"TIWKEYD_TENCENT_REGION=https://user:CANARY pw@host", "not the name of a region"},
		{"TIWKEYD_VAULT_MOUNT=https://user:CANARYpw@host/secret", "not a path in Vault"},
		{"VAULT_ADDR=https://vault:8200/v1", "VAULT_ADDR: it ends in /v1"},
		{"VAULT_ADDR=https://vault/behind/v1/", "VAULT_ADDR: it ends in /v1"},
		{"VAULT_AGENT_ADDR=http://127.0.0.1:8100/v1", "VAULT_AGENT_ADDR: it ends in /v1"},
		{"VAULT_ADDR=https://vault:8200/ui", "VAULT_ADDR: it is an address of Vault's pages"},
		{"VAULT_ADDR=https://vault:8200/ui/vault/secrets", "VAULT_ADDR: it is an address of Vault's pages"},
		{"HTTPS_PROXY=http://user:CANARY%zz@proxy:3128", "HTTPS_PROXY is not a URL of the form"},
		{"https_proxy=user:CANARY%zz@proxy:3128", "https_proxy is not a URL of the form"},
		{"HTTP_PROXY=http://user:CANARY/pw@proxy:3128", "HTTP_PROXY is not a URL of the form"},
		{"VAULT_TOKEN_FILE=/x", "VAULT_AUTH_METHOD"},
		{"VAULT_TOKEN=", "no way to log in"},
	} {
		name, _, _ := strings.Cut(r.set, "=")
		_, err := Load(good(r.set))
		if err == nil || !strings.Contains(err.Error(), r.want) || (strings.HasPrefix(name, "TIWKEYD") && !strings.Contains(err.Error(), name)) {
			t.Errorf("%s: %v, want %q", r.set, err, r.want)
			continue
		}
		if n := strings.Count(err.Error(), "\n"); n != 0 && !strings.Contains(r.set, " ,") {
			t.Errorf("%s: one mistake gives several errors: %v", r.set, err)
		}
		if strings.Contains(err.Error(), "CANARY") {
			t.Errorf("%s: the error shows a secret: %v", r.set, err)
		}
	}
}

func TestAllErrorsAtOnce(t *testing.T) {
	t.Parallel()
	_, err := Load([]string{"TIWKEYD_TARGETS=0,x/y,3/z", "TIWKEYD_KEY_LENGTH=1", "TIWKEYD_GRACE=1s", "TIWKEYD_SCHEDULE=?", "TIWKEYD_LOG_LEVEL=?", "TIWKEYD_TENCENT_ENDPOINT=http://a.example"})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"TIWKEYD_KEY_LENGTH", "TIWKEYD_GRACE", "TIWKEYD_SCHEDULE", "TIWKEYD_LOG_LEVEL", "TIWKEYD_TENCENT_ENDPOINT", "log in to Vault", `target "0"`, `target "x/y"`, `target "3/z"`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s is not told in:\n%v", want, err)
		}
	}
}

// TestTooManyKeys: the error comes along with all others, also if the schedule or the grace itself is wrong.
func TestTooManyKeys(t *testing.T) {
	t.Parallel()
	for _, r := range []struct {
		propagation, grace string
		refused            bool
	}{{"0", "24h", true}, {"0", "10m", true}, {"1s", "10m", false}, {"1s", "soon", false}, {"later", "24h", true}, {"1s", "9m", false}} {
		_, err := Load(good("TIWKEYD_SCHEDULE=@every 1s", "TIWKEYD_RATE=?", "TIWKEYD_PROPAGATION="+r.propagation, "TIWKEYD_GRACE="+r.grace))
		if err == nil || !strings.Contains(err.Error(), "TIWKEYD_RATE") || strings.Contains(err.Error(), "more than 500 keys within TIWKEYD_GRACE") != r.refused {
			t.Errorf("%+v: %v", r, err)
		}
	}
}

func TestGoodInputs(t *testing.T) {
	t.Parallel()
	for _, set := range []string{"TIWKEYD_TENCENT_ENDPOINT=http://127.0.0.1:8080", "TIWKEYD_TENCENT_ENDPOINT=http://[::1]:8080", "TIWKEYD_TENCENT_ENDPOINT=http://localhost:1",
		"TIWKEYD_TENCENT_ENDPOINT=tiw.intl.tencentcloudapi.com", "TIWKEYD_TENCENT_ENDPOINT=https://tiw.tencentcloudapi.com/", "TIWKEYD_SCHEDULE=@daily", "TIWKEYD_SCHEDULE=CRON_TZ=Asia/Shanghai 0 3 * * 1",
		"TIWKEYD_SCHEDULE=@every 12h", "TIWKEYD_GRACE=11900h", "TIWKEYD_PROPAGATION=0", "TIWKEYD_TARGETS=9223372036854775807", "TIWKEYD_KEY_LENGTH=32", "TIWKEYD_LOG_LEVEL=DEBUG",
		"TIWKEYD_TENCENT_CREDENTIALS=vault:secret/a/b", "TIWKEYD_TENCENT_CREDENTIALS=sts:qcs::cam::uin/1:roleName/r", "TIWKEYD_VAULT_PREFIX=a/b", "TIWKEYD_RATE=0.5",
		"TIWKEYD_HTTP_ADDR=", "TIWKEYD_HTTP_ADDR=:9469", "TIWKEYD_HTTP_ADDR=[::1]:0", "TIWKEYD_HTTP_ADDR=monitoring.example:9469",
		"TIWKEYD_HTTP_URL=", "TIWKEYD_HTTP_URL=https://keys.example", "TIWKEYD_HTTP_URL=https://ops.example/tiw/", "TIWKEYD_HTTP_URL=https://keys.example:8443/", "TIWKEYD_HTTP_URL=http://[::1]:80",
		"TIWKEYD_HTTP_TOKEN=", "TIWKEYD_HTTP_TOKEN=0123456789abcdef0123456+", "TIWKEYD_HTTP_TOKEN=" + strings.Repeat("x", 1000)} {
		if _, err := Load(good(set)); err != nil {
			t.Errorf("%s: %v", set, err)
		}
	}
}

func TestUnknownVariables(t *testing.T) {
	t.Parallel()
	c, err := Load(good("TIWKEYD_SHEDULE=x", "TIWKEYD_SERVICE_HOST=1.2.3.4", "TIWKEYD_PORT_9469_TCP=x", "TIWKEYD_SERVICE_PORT_HTTP=1"))
	if err != nil || !reflect.DeepEqual(c.Unknown, []string{"TIWKEYD_SHEDULE"}) {
		t.Errorf("%v, %v", c.Unknown, err)
	}
}

// TestSites: each of Tencent's sites has an endpoint and a region, and either can be another one.
func TestSites(t *testing.T) {
	t.Parallel()
	for set, want := range map[string]string{
		"":            "tiw.tencentcloudapi.com ap-singapore",
		"intl":        "tiw.intl.tencentcloudapi.com ap-singapore",
		"mainland":    "tiw.tencentcloudapi.com ap-guangzhou",
		"mainland,x,": "x ap-guangzhou",
		"intl,,ap-x":  "tiw.intl.tencentcloudapi.com ap-x",
		",x,ap-x":     "x ap-x",
		"mainland,,":  "tiw.tencentcloudapi.com ap-guangzhou",
	} {
		parts := append(strings.Split(set, ","), "", "")
		c, err := Load(good("TIWKEYD_TENCENT_SITE="+parts[0], "TIWKEYD_TENCENT_ENDPOINT="+parts[1], "TIWKEYD_TENCENT_REGION="+parts[2]))
		if err != nil || c.Endpoint+" "+c.Region != want {
			t.Errorf("%s: %v, %v", set, c, err)
		}
	}
	if _, err := Load(good("TIWKEYD_TARGETS=7/ppt-check", "TIWKEYD_TENCENT_SITE=mainland")); err != nil {
		t.Error(err)
	}
}

// TestTraces: nothing of tiwkeyd goes by OTEL_… variables, and whoever sets one is told; one that is empty says nothing.
func TestTraces(t *testing.T) {
	t.Parallel()
	c, err := Load(good("OTEL_SERVICE_NAME=x", "OTEL_EXPORTER_OTLP_HEADERS=authorization=CANARY", "OTEL_TRACES_EXPORTER=", "TIWKEYD_OTEL=1"))
	if err != nil || !reflect.DeepEqual(c.Traces, []string{"OTEL_EXPORTER_OTLP_HEADERS", "OTEL_SERVICE_NAME"}) {
		t.Errorf("%v, %v", c.Traces, err)
	}
}

// TestDocumented compares the variables with what the README says of them.
func TestDocumented(t *testing.T) {
	t.Parallel()
	for _, v := range Variables() {
		if v.Meaning == "" {
			t.Errorf("%s has no meaning", v.Name)
		}
	}
	for name := range meanings {
		if !strings.Contains(Markdown(), "`"+name+"`") {
			t.Errorf("%s is explained and not read", name)
		}
	}
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(readme), "<!-- variables: begin -->\n"+Markdown()+"<!-- variables: end -->") {
		t.Errorf("the README's table is not this:\n%s", Markdown())
	}
}

func TestEnvFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "env")
	write := func(text string, mode os.FileMode) {
		t.Helper()
		_ = os.Remove(path)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("TIWKEYD_TEST_OWN", "own")
	for _, name := range []string{"TIWKEYD_TEST_A", "TIWKEYD_TEST_B"} {
		t.Setenv(name, "")
		_ = os.Unsetenv(name)
	}
	f := NewEnvFile(path)
	apply := func(want string) {
		t.Helper()
		_, err := f.Apply()
		got := fmt.Sprintf("%s|%s|%s|%v", os.Getenv("TIWKEYD_TEST_OWN"), os.Getenv("TIWKEYD_TEST_A"), os.Getenv("TIWKEYD_TEST_B"), err != nil)
		if got != want {
			t.Errorf("%s, want %s (%v)", got, want, err)
		}
		if err != nil && strings.Contains(err.Error(), "CANARY") {
			t.Errorf("the error shows a secret: %v", err)
		}
	}
	apply("own|||true")
	write("# comment\nTIWKEYD_TEST_OWN=file\nTIWKEYD_TEST_A='a b'\n", 0o644)
	apply("own|a b||false")
	write("TIWKEYD_TEST_B=b\n", 0o644)
	apply("own||b|false")
	write("TIWKEYD_TEST_B=c\nVAULT_TOKEN=CANARY\n", 0o644)
	apply("own||b|true") // others can read it: nothing changes
	write("TIWKEYD_TEST_A=a\nTIWKEYD_TEST_B=d\n", 0o600)
	undo, err := f.Apply()
	if err != nil || os.Getenv("TIWKEYD_TEST_B") != "d" || f.Names() != "TIWKEYD_TEST_A, TIWKEYD_TEST_B" {
		t.Errorf("%v, %s", err, f.Names())
	}
	undo()
	if _, has := os.LookupEnv("TIWKEYD_TEST_A"); has || os.Getenv("TIWKEYD_TEST_B") != "b" || f.Names() != "TIWKEYD_TEST_B" {
		t.Errorf("not undone: %s", f.Names())
	}
	write("CANARY not a variable {\n", 0o600)
	apply("own||b|true")
}

// TestKeepVersions and the login that a credential in Vault needs beside a file store.
func TestKeepVersions(t *testing.T) {
	t.Parallel()
	if _, err := Load([]string{"TIWKEYD_TARGETS=1", "TIWKEYD_STORE=file:///var/lib/tiwkeyd", "TIWKEYD_TENCENT_CREDENTIALS=vault:secret/tencent", "HOME=/nowhere"}); err == nil || !strings.Contains(err.Error(), "log in to Vault") {
		t.Errorf("a credential in Vault, and no way to log in: %v", err)
	}
	for value, want := range map[string]bool{"": false, "false": false, "true": true} {
		set := good()
		if value != "" {
			set = good("TIWKEYD_VAULT_KEEP_VERSIONS=" + value)
		}
		if c, err := Load(set); err != nil || c.Policy.KeepVersions != want {
			t.Errorf("TIWKEYD_VAULT_KEEP_VERSIONS=%s: %v", value, err)
		}
	}
}

// TestVariablesOf: a value is what stands there, for systemd and Docker too; what is wrong is told by its line.
func TestVariablesOf(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]map[string]string{
		"A=a$b\n":                        {"A": "a$b"},
		"A=\"a$b${c}\"\nB='$1'\nC=$$\\$": {"A": "a$b${c}", "B": "$1", "C": `$$\$`},
		"A=1\nB=${A}\n":                  {"A": "1", "B": "${A}"},
		"\ufeffA=1\r\nexport B=2\r\n":    {"A": "1", "B": "2"},
		"A=a#b\nB=a # of June\nC=\n":     {"A": "a#b", "B": "a", "C": ""},
		"# A=1\n\nB=2":                   {"B": "2"},
		"":                               {},
	} {
		if got, err := variablesOf(text); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	for text, line := range map[string]string{
		"CANARY": "line 1 ", "A=1\nCANARY not a variable {\nB=2\n": "line 2 ", "A=1\nB=\"two\nlines\"\n\nCANARY{\n": "line 5 ", "A=1\nB=\"CANARY\nC=2\n": "line 2 ",
		"\xff\xfeA\x00=\x001\x00": "line 1 ",
	} {
		if got, err := variablesOf(text); err == nil || !strings.Contains(err.Error(), line) || strings.Contains(err.Error(), "CANARY") {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
}

// TestEnvFileIsPrivate: no secret stands in a file that others can reach.
func TestEnvFileIsNone(t *testing.T) {
	for _, path := range []string{"", os.DevNull} {
		if _, err := NewEnvFile(path).Apply(); err != nil {
			t.Errorf("%q: %v", path, err)
		}
	}
}

func TestEnvFileIsPrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "env")
	for _, name := range secretVariables {
		t.Setenv(name, "")
		_ = os.Unsetenv(name)
	}
	for _, name := range []string{"VAULT_TOKEN", "VAULT_SECRET_ID", "TENCENTCLOUD_SECRET_KEY", "TENCENTCLOUD_TOKEN", "TIWKEYD_HTTP_TOKEN"} {
		for _, mode := range []os.FileMode{0o640, 0o604, 0o620} {
			_ = os.Remove(path)
			if err := os.WriteFile(path, []byte(name+"=CANARY\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
			if _, err := NewEnvFile(path).Apply(); err == nil || !strings.Contains(err.Error(), path+" can be ") || os.Getenv(name) != "" {
				t.Errorf("%s in a file of mode %04o: %v", name, mode, err)
			}
		}
	}
	// Without a secret it may be read by all, and written by nobody else.
	for text, c := range map[string]struct {
		mode os.FileMode
		good bool
	}{"TIWKEYD_TEST_OPEN=1\n": {0o644, true}, "TIWKEYD_TEST_PROXY=http://u:CANARY@h:1\n": {0o644, false}, "TIWKEYD_TEST_PROXY=http://h:1\n": {0o644, true}, "TIWKEYD_TEST_OPEN=2\n": {0o664, false}, "TIWKEYD_TEST_OPEN=3\n": {0o646, false}, "\ufeffTIWKEYD_TEST_OPEN=4": {0o444, true}, "\xff\xfeT": {0o600, false}} {
		_ = os.Remove(path)
		if err := errors.Join(os.WriteFile(path, []byte(text), 0o600), os.Chmod(path, c.mode)); err != nil {
			t.Fatal(err)
		}
		undo, err := NewEnvFile(path).Apply()
		if (err == nil) != c.good || err != nil && !strings.Contains(err.Error(), path) {
			t.Errorf("%q, mode %04o: %v", text, c.mode, err)
		}
		if err == nil {
			undo()
		}
	}
	_ = os.Remove(path)
	// One variable cannot be set: the others are taken back.
	t.Setenv("TIWKEYD_TEST_A", "")
	_ = os.Unsetenv("TIWKEYD_TEST_A")
	for range 10 { // the order of a map
		if err := os.WriteFile(path, []byte("TIWKEYD_TEST_A=a\nTIWKEYD_TEST_B=\"b\x00\"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := NewEnvFile(path).Apply(); err == nil || os.Getenv("TIWKEYD_TEST_A") != "" {
			t.Errorf("half of a file was applied: %v", err)
		}
	}
}
