package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"tiwkeyd/internal/doctor"
	"tiwkeyd/secrets/vault/vaulttest"
	"tiwkeyd/tencent/tiwtest"
)

const (
	dataRule    = `path "secret/data/tiw/*" { capabilities = ["create", "read", "update"] }`
	destroyRule = `path "secret/destroy/tiw/*" { capabilities = ["update"] }`
	targetPath  = "1400000001/whiteboard-push"
)

// dataWith is a rule for the keyrings with these capabilities alone.
func dataWith(capabilities string) string {
	return fmt.Sprintf(`path "secret/data/tiw/*" { capabilities = [%s] }`, capabilities)
}

// tokenOf makes a token in the way that a request says.
func (c *clinic) tokenOf(r api.TokenCreateRequest) string {
	c.t.Helper()
	r.Policies = []string{"tiwkeyd"}
	got, err := c.v.Client(c.v.Token).Auth().Token().CreateOrphan(&r)
	if err != nil {
		c.t.Fatal(err)
	}
	c.secret(got.Auth.ClientToken)
	return got.Auth.ClientToken
}

// mount makes a mount that ends with the test.
func (c *clinic) mount(path string, options map[string]string) {
	c.t.Helper()
	sys := c.v.Client(c.v.Token).Sys()
	if err := sys.Mount(path, &api.MountInput{Type: "kv", Options: options}); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		if err := sys.Unmount(path); err != nil {
			c.t.Error(err)
		}
	})
}

func vaultFaults() []planted {
	no, policy := false, func(rules string) func(*clinic) { return func(c *clinic) { c.policy(rules) } }
	lack := func(name, rules, what, mend string) planted {
		return planted{name, policy(rules), doctor.VaultPolicy, doctor.Fail, targetPath + ": the token may not " + what, "add to the token's policy: " + mend, 2}
	}
	return []planted{
		{"VAULT_ADDR with a wrong port", func(c *clinic) { c.set("VAULT_ADDR=http://127.0.0.1:1") }, doctor.Vault, doctor.Fail, "at http://127.0.0.1:1: dial tcp 127.0.0.1:1: connect: connection refused", "check VAULT_ADDR", 2},
		{"VAULT_ADDR of something else", func(c *clinic) {
			c.set("VAULT_ADDR=" + c.serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.Error(w, "<html>", http.StatusTeapot) })))
		}, doctor.Vault, doctor.Fail, "an answer that is not Vault's", "check VAULT_ADDR", 2},
		{"Vault hangs", func(c *clinic) { c.set("VAULT_ADDR=" + c.hanging()) }, doctor.Vault, doctor.Fail, "no answer came in time", "check VAULT_ADDR", 2},
		{"Vault is sealed", func(c *clinic) { c.v.Seal(); c.t.Cleanup(c.v.Unseal) }, doctor.Vault, doctor.Fail, "is sealed", "vault operator unseal", 2},
		{"Vault was never initialised", func(c *clinic) { c.set("VAULT_ADDR=" + vaulttest.StartEmpty(c.t).Addr) }, doctor.Vault, doctor.Fail, "never initialised", "vault operator init", 2},
		{"Vault's clock is 90 s off", func(c *clinic) { c.set("VAULT_ADDR=" + c.datedProxy(c.v.Addr, 90*time.Second)) }, doctor.VaultClock, doctor.Warn, "s behind Vault's", "set the clock that is wrong (NTP)", 0},
		{"Vault's clock is 5 min off", func(c *clinic) { c.set("VAULT_ADDR=" + c.datedProxy(c.v.Addr, -5*time.Minute)) }, doctor.VaultClock, doctor.Fail, "ahead of Vault's", "set the clock that is wrong (NTP)", 2},

		{"token invalid", func(c *clinic) { c.token("hvs.CANARY-of-no-vault") }, doctor.VaultToken, doctor.Fail, "look up the token", "give a new one in VAULT_TOKEN", 2},
		{"token expired", func(c *clinic) {
			token := c.v.NewToken("tiwkeyd", "1s")
			c.await("the token expires", func() bool { _, err := c.v.Client(token).Auth().Token().LookupSelf(); return err != nil })
			c.token(token)
		}, doctor.VaultToken, doctor.Fail, "look up the token", "give a new one in VAULT_TOKEN", 2},
		{"token expires soon", func(c *clinic) { c.token(c.tokenOf(api.TokenCreateRequest{TTL: "10m", Renewable: &no})) }, doctor.VaultToken, doctor.Fail, "left, not renewable", "give a periodic one", 2},
		{"token not renewable", func(c *clinic) { c.token(c.tokenOf(api.TokenCreateRequest{TTL: "20h", Renewable: &no})) }, doctor.VaultToken, doctor.Warn, "left, not renewable", "give a periodic one", 0},
		{"token renewable for a while only", func(c *clinic) { c.token(c.tokenOf(api.TokenCreateRequest{TTL: "5m", ExplicitMaxTTL: "48h"})) }, doctor.VaultToken, doctor.Warn, "renewable until 20", "give a periodic one", 0},
		{"token in a file expires soon", func(c *clinic) { c.tokenInFile(c.tokenOf(api.TokenCreateRequest{TTL: "10m", Renewable: &no})) }, doctor.VaultToken, doctor.Warn, "left, not renewable", "what writes VAULT_TOKEN_FILE", 0},
		{"token file empty", func(c *clinic) { c.tokenInFile("") }, doctor.VaultToken, doctor.Fail, "is empty", "have a token written there", 2},
		{"root token", func(c *clinic) { c.token(c.v.Token) }, doctor.VaultToken, doctor.Warn, "it never expires; policies root", "deploy/vault/policy.hcl", 0},
		{"AppRole is well", func(c *clinic) {
			role, secret := c.v.AppRole("check", "tiwkeyd", "1h", "24h")
			c.secret(secret)
			c.env = without(c.env, "VAULT_TOKEN_FILE")
			c.set("VAULT_ROLE_ID="+role, "VAULT_SECRET_ID="+secret)
		}, doctor.VaultToken, doctor.OK, "Vault knows the token (approle); it has ", "", 0},
		{"AppRole with a wrong secret id", func(c *clinic) {
			role, _ := c.v.AppRole("check", "tiwkeyd", "1h", "24h")
			c.env = without(c.env, "VAULT_TOKEN_FILE")
			c.set("VAULT_ROLE_ID="+role, "VAULT_SECRET_ID=CANARY-secret-id")
			c.secret("CANARY-secret-id")
		}, doctor.VaultToken, doctor.Fail, "log in with approle", "make a new secret id for VAULT_SECRET_ID", 2},
		{"AppRole at another mount", func(c *clinic) {
			role, secret := c.v.AppRole("check", "tiwkeyd", "1h", "24h")
			c.secret(secret)
			c.env = without(c.env, "VAULT_TOKEN_FILE")
			c.set("VAULT_ROLE_ID="+role, "VAULT_SECRET_ID="+secret, "VAULT_AUTH_MOUNT=nowhere")
		}, doctor.VaultToken, doctor.Fail, "log in with approle", "VAULT_AUTH_MOUNT", 2},

		{"mount missing", func(c *clinic) {
			c.set("TIWKEYD_VAULT_MOUNT=absent")
			c.policy(`path "absent/data/tiw/*" { capabilities = ["create", "read", "update"] } path "absent/destroy/tiw/*" { capabilities = ["update"] }`)
		}, doctor.VaultMount, doctor.Fail, "the mount is not there", `there is no KV version 2 mount "absent"`, 2},
		{"mount is KV version 1", func(c *clinic) {
			c.mount("kv1", map[string]string{"version": "1"})
			c.set("TIWKEYD_VAULT_MOUNT=kv1")
			c.policy(`path "kv1/data/tiw/*" { capabilities = ["create", "read", "update"] } path "kv1/destroy/tiw/*" { capabilities = ["update"] }`)
		}, doctor.VaultMount, doctor.Fail, "not a KV version 2 engine", "vault kv enable-versioning kv1/", 2},

		lack("policy lacks read", dataWith(`"create", "update"`)+destroyRule, "read secret/data/tiw/"+targetPath, dataRule),
		lack("policy lacks create", dataWith(`"read", "update"`)+destroyRule, "create secret/data/tiw/"+targetPath, dataRule),
		lack("policy lacks update", dataWith(`"create", "read"`)+destroyRule, "update secret/data/tiw/"+targetPath, dataRule),
		lack("policy lacks destroy", dataRule, "update secret/destroy/tiw/"+targetPath, destroyRule),
		lack("policy for another prefix", `path "secret/data/other/*" { capabilities = ["create", "read", "update"] }`, "create, read and update secret/data/tiw/"+targetPath, dataRule),
		lack("policy for nothing", `path "secret/data/ready" { capabilities = ["read"] }`, "update secret/destroy/tiw/"+targetPath, destroyRule),
		{"destroy is not needed", func(c *clinic) { c.set("TIWKEYD_VAULT_KEEP_VERSIONS=true"); c.policy(dataRule) }, doctor.VaultPolicy, doctor.OK, "the token may create, read and update secret/data/tiw/" + targetPath, "", 0},
		{"policy hides what it allows", policy(dataRule + destroyRule + `path "sys/capabilities-self" { capabilities = ["deny"] }`), doctor.VaultPolicy, doctor.Warn, "ask what the token may do", `path "sys/capabilities-self" { capabilities = ["update"] }`, 0},
		{"policy hides that it allows nothing", policy(`path "sys/capabilities-self" { capabilities = ["deny"] }`), doctor.Keyring, doctor.Fail, targetPath + ": vault: read secret/tiw/" + targetPath, "lacks the capability read", 2},
		{"policy hides the token", policy(dataRule + destroyRule + `path "auth/token/lookup-self" { capabilities = ["deny"] }`), doctor.VaultToken, doctor.Warn, "ask about itself", `path "auth/token/lookup-self" { capabilities = ["read"] }`, 0},
		{"no secret with Tencent's credential", func(c *clinic) {
			c.set("TIWKEYD_TENCENT_CREDENTIALS=vault:secret/tencent/main")
			c.policy(dataRule + destroyRule + `path "secret/data/tencent/main" { capabilities = ["read"] }`)
		}, doctor.Credential, doctor.Fail, "there is no secret secret/tencent/main", "`vault kv put secret/tencent/main …`", 2},
		{"policy lacks Tencent's credential", func(c *clinic) { c.set("TIWKEYD_TENCENT_CREDENTIALS=vault:secret/tencent/main") }, doctor.VaultPolicy, doctor.Fail, "the token may not read secret/data/tencent/main", `path "secret/data/tencent/main" { capabilities = ["read"] }`, 2},

		{"keyring that cannot be decoded", func(c *clinic) { c.keyringOf(testTarget, map[string]any{"callback_key": oldKey, "accept": oldKey}) }, doctor.Keyring, doctor.Fail, targetPath + ": vault: the secret secret/tiw/" + targetPath + ": keyring of " + targetPath + ` cannot be used: "schema" is missing`, "vault kv rollback -version=N secret/tiw/" + targetPath, 2},
		{"keyring of a newer version", func(c *clinic) { c.keyringOf(testTarget, map[string]any{"schema": 99}) }, doctor.Keyring, doctor.Fail, "its schema is newer", "a newer one", 2},
		{"keyring deleted", func(c *clinic) {
			c.keyringOf(testTarget, keyringWith(oldKey))
			if err := c.v.Client(c.v.Token).KVv2("secret").Delete(c.t.Context(), "tiw/"+targetPath); err != nil {
				c.t.Fatal(err)
			}
		}, doctor.Keyring, doctor.Warn, "it was deleted", "vault kv undelete", 0},
		{"keyring that Vault will delete", func(c *clinic) {
			c.keyringOf(testTarget, keyringWith(oldKey), api.KVMetadataPutInput{DeleteVersionAfter: time.Hour})
		}, doctor.Keyring, doctor.Warn, "Vault will delete it at 20", "set delete_version_after to 0", 0},
		{"keyring without the key in force", func(c *clinic) {
			c.keyringOf(testTarget, keyringWith("CANARY-another-key"))
			c.secret("CANARY-another-key")
		}, doctor.Keyring, doctor.Warn, "settled, last rotated 2026-01-02T03:04:05Z", "TIWKEYD_ON_DRIFT says (reassert)", 0},
		{"keyring whose last attempt failed", func(c *clinic) {
			k := keyringWith(oldKey)
			k["rotation"] = map[string]any{"id": "r", "reason": "schedule", "retry_at": "2026-01-02T03:04:05Z", "last_error": map[string]any{"code": "InternalError", "message": "oh", "request_id": "req-9", "refused": false}}
			c.keyringOf(testTarget, k)
		}, doctor.Keyring, doctor.Warn, "failed with InternalError: oh (RequestId req-9)", "tiwkeyd rotate", 0},
	}
}

// keyringWith is a keyring that is at rest, with one key.
func keyringWith(key string) map[string]any {
	return map[string]any{"schema": 1, "sdk_app_id": testTarget.SdkAppID, "service": string(testTarget.Service), "callback_key": key, "accept": []string{key}, "rotated_at": "2026-01-02T03:04:05Z",
		"keys": []any{map[string]any{"id": "abc", "value": key, "state": "current", "created_at": "2026-01-02T03:04:05Z", "activated_at": "2026-01-02T03:04:05Z"}}}
}

func tencentFaults() []planted {
	app, describe := testTarget.SdkAppID, "DescribeWhiteboardPushCallback"
	refuse := func(code string) func(*clinic) {
		return func(c *clinic) { c.server.RefuseAlways(app, "Describe", code) }
	}
	plan := func(faults ...tiwtest.Fault) func(*clinic) {
		return func(c *clinic) { c.server.Plan(describe, app, faults...) }
	}
	credential := func(code string) string { return ": " + describe + " for " + targetPath + ": refused: " + code }
	permission := func(code string) string { return "whiteboard-push" + credential(code) }
	answer := func(code string) string { return targetPath + ": " + describe + ": refused: " + code }
	limit := tiwtest.Refuse("RequestLimitExceeded")
	return []planted{
		{"Tencent's clock is 90 s off", func(c *clinic) { c.wrongTencent(-90 * time.Second) }, doctor.TencentClock, doctor.Warn, "s ahead of Tencent's", "set this machine's clock (NTP)", 0},
		{"Tencent's clock is 5 min off", func(c *clinic) { c.wrongTencent(5 * time.Minute) }, doctor.TencentClock, doctor.Fail, "s behind Tencent's", "set this machine's clock (NTP)", 2},
		{"Tencent unreachable", func(c *clinic) { c.set("TIWKEYD_TENCENT_ENDPOINT=http://127.0.0.1:1") }, doctor.Tencent, doctor.Fail, "reach http://127.0.0.1:1: dial tcp 127.0.0.1:1: connect: connection refused", "check TIWKEYD_TENCENT_ENDPOINT", 2},
		{"Tencent hangs", func(c *clinic) { c.set("TIWKEYD_TENCENT_ENDPOINT=" + c.hanging()) }, doctor.Tencent, doctor.Fail, "no answer came in time", "check TIWKEYD_TENCENT_ENDPOINT", 2},
		{"Tencent's API hangs", plan(tiwtest.Delay(time.Hour)), doctor.Tencent, doctor.Fail, describe + " for " + targetPath + ": doubtful: ClientError", "check TIWKEYD_TENCENT_ENDPOINT", 2},
		{"a gateway's page", plan(tiwtest.HTTPError(), tiwtest.HTTPError(), tiwtest.HTTPError(), tiwtest.HTTPError()), doctor.Tencent, doctor.Fail, "HTTP status 502", "check TIWKEYD_TENCENT_ENDPOINT", 2},
		{"an answer of garbage, with the key in it", plan(tiwtest.Garbage(), tiwtest.Garbage(), tiwtest.Garbage(), tiwtest.Garbage()), doctor.Tencent, doctor.Fail, "not JSON", "check TIWKEYD_TENCENT_ENDPOINT", 2},
		{"a connection that breaks once", plan(tiwtest.Drop()), doctor.Application, doctor.OK, "a key is in force", "", 0},
		{"no credential", func(c *clinic) { c.set("TENCENTCLOUD_SECRET_KEY=", "TIWKEYD_TENCENT_CREDENTIALS=env") }, doctor.Credential, doctor.Fail, "are not both set", "set TENCENTCLOUD_SECRET_ID and TENCENTCLOUD_SECRET_KEY", 2},
		{"wrong SecretId", func(c *clinic) { c.set("TENCENTCLOUD_SECRET_ID=AKIDwrong") }, doctor.Credential, doctor.Fail, credential("AuthFailure.SecretIdNotFound"), "check the credential (TENCENTCLOUD_SECRET_ID, TENCENTCLOUD_SECRET_KEY)", 2},
		{"wrong SecretKey", func(c *clinic) {
			c.set("TENCENTCLOUD_SECRET_KEY=CANARY-wrong-secret-key")
			c.secret("CANARY-wrong-secret-key")
		}, doctor.Credential, doctor.Fail, "the signature does not match; RequestId ", "check the credential (TENCENTCLOUD_SECRET_ID, TENCENTCLOUD_SECRET_KEY)", 2},
		{"wrong region", plan(tiwtest.Refuse("UnsupportedRegion")), doctor.Region, doctor.Fail, credential("UnsupportedRegion"), "set TIWKEYD_TENCENT_SITE to the account's: intl is ap-singapore, mainland is ap-guangzhou", 2},
		{"no permission for Describe", refuse("UnauthorizedOperation"), doctor.Permission, doctor.Fail, permission("UnauthorizedOperation"), "grant tiw:DescribeWhiteboardPushCallback and tiw:SetWhiteboardPushCallbackKey in CAM", 2},
		{"no permission for Describe, in CAM's words", refuse("AuthFailure.UnauthorizedOperation"), doctor.Permission, doctor.Fail, permission("AuthFailure.UnauthorizedOperation"), "grant tiw:DescribeWhiteboardPushCallback", 2},
		{"SdkAppId of another account", func(c *clinic) { c.set("TIWKEYD_TARGETS=1400000001,1499999999") }, doctor.Application, doctor.Fail, "1499999999/whiteboard-push: DescribeWhiteboardPushCallback: refused: UnauthorizedOperation.SdkAppId", "check the SdkAppId in TIWKEYD_TARGETS", 2},
		{"service expired", refuse("ResourceUnavailable.ServiceExpired"), doctor.Application, doctor.Fail, answer("ResourceUnavailable.ServiceExpired"), "renew it, or settle the bill", 2},
		{"service not registered", refuse("ResourceUnavailable.NotRegistered"), doctor.Application, doctor.Fail, "; RequestId ", "enable Interactive Whiteboard", 2},
		{"rate limit exceeded for a moment", plan(limit), doctor.Application, doctor.Warn, "only at try 2, after RequestLimitExceeded", "lower TIWKEYD_RATE", 0},
		{"rate limit exceeded for good", plan(limit, limit, limit, limit), doctor.Application, doctor.Fail, "refused for now: RequestLimitExceeded", "lower TIWKEYD_RATE", 2},
		{"a fault at Tencent", refuse("InternalError"), doctor.Application, doctor.Fail, "doubtful: InternalError (a fault at Tencent)", "tried again", 2},
	}
}

// TestCheckManyTargets asks about all of many applications, once each, and says how far it is.
func TestCheckManyTargets(t *testing.T) {
	t.Parallel()
	const apps = 350
	c := newClinic(t, vaulttest.Start(t))
	s, err := tiwtest.Start(tiwtest.Options{Rate: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	s.AddCredential(testID, testKey, "")
	targets := ""
	for id := int64(1); id <= apps; id++ {
		if id != 300 {
			s.AddApp(id)
		}
		targets += fmt.Sprintf(",%d", id)
	}
	c.server = s
	c.set("TIWKEYD_TENCENT_ENDPOINT="+s.URL, "TIWKEYD_TARGETS="+targets[1:], "TIWKEYD_RATE=1000")
	out, code := c.run([]string{"check"})
	for _, want := range []string{
		"\nok    application    20/whiteboard-push: it is of this account, and no key is set",
		"\nok    application    279 more like these; --json has them all\n",
		"\nFAIL  application    300/whiteboard-push: ",
		"\nok    application    301/whiteboard-push: ",
		"\nok    vault policy   680 more like these",
		"tiwkeyd: application: 100 of 350\n", "tiwkeyd: application: 300 of 350\n", "tiwkeyd: keyring: 200 of 350\n", "tiwkeyd: vault policy: 400 of 700\n",
		"\ntiwkeyd: 1 failed",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in what was printed:\n%s", want, out)
		}
	}
	if n := s.Calls("DescribeWhiteboardPushCallback"); code != exitUsage || n != apps {
		t.Errorf("exit status %d, and %d calls, not one for each of %d applications", code, n, apps)
	}
}
