package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/vault/api"

	"tiwkeyd/secrets"
	"tiwkeyd/secrets/vault/vaulttest"
	"tiwkeyd/tencent"
)

func deployed(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../deploy", path))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// onlyToken makes a token with this policy and not even the policy `default`.
func onlyToken(t *testing.T, v *vaulttest.Server, policy string) string {
	t.Helper()
	v.Policy("alone", policy)
	got, err := v.Client(v.Token).Auth().Token().CreateOrphan(&api.TokenCreateRequest{Policies: []string{"alone"}, TTL: "1h", NoDefaultPolicy: true})
	if err != nil {
		t.Fatal(err)
	}
	return got.Auth.ClientToken
}

var capability = regexp.MustCompile(`"(create|read|update|delete|list|patch|sudo)",? ?`)

// reduced gives the policy with one capability less, for each of them.
func reduced(policy string) map[string]string {
	all := map[string]string{}
	path := ""
	offset := 0
	for line := range strings.Lines(policy) {
		if _, rest, ok := strings.Cut(line, `path "`); ok && !strings.HasPrefix(line, "#") {
			path, _, _ = strings.Cut(rest, `"`)
		}
		if strings.Contains(line, "capabilities") && !strings.HasPrefix(line, "#") {
			for _, m := range capability.FindAllStringSubmatchIndex(line, -1) {
				less := strings.ReplaceAll(line[:m[0]]+line[m[1]:], ", ]", "]")
				all[line[m[2]:m[3]]+" "+path] = policy[:offset] + less + policy[offset+len(line):]
			}
		}
		offset += len(line)
	}
	return all
}

// TestLeastPrivilege rotates with a token that has deploy/vault/policy.hcl and nothing else,
// and again with each capability taken away: then the rotation fails, or a replaced key can
// still be read in an older version.
func TestLeastPrivilege(t *testing.T) {
	t.Parallel()
	v := vaulttest.Start(t)
	root := v.Client(v.Token).KVv2("secret")
	whole := func(policy string) (string, bool) {
		r := newRig(t)
		_ = root.DeleteMetadata(context.Background(), "tiw/"+testTarget.String())
		token := onlyToken(t, v, policy)
		r.secret(token)
		r.server.SetKey(testTarget.SdkAppID, string(testTarget.Service), oldKey)
		r.env = append(r.env, "TIWKEYD_STORE=vault", "VAULT_ADDR="+v.Addr, "VAULT_TOKEN="+token)
		for range 2 {
			if out, code := r.run([]string{"rotate", "--revoke", "--timeout", "20s"}); code != 0 {
				return fmt.Sprintf("rotate ended with %d\n%s", code, tail(out)), false
			}
		}
		versions, err := root.GetVersionsAsList(context.Background(), "tiw/"+testTarget.String())
		if err != nil {
			return err.Error(), false
		}
		for _, old := range versions[:len(versions)-1] {
			got, err := root.GetVersion(context.Background(), "tiw/"+testTarget.String(), old.Version)
			if err == nil && got.Data != nil && strings.Contains(fmt.Sprint(got.Data), oldKey) {
				return fmt.Sprintf("version %d still holds a revoked key", old.Version), false
			}
		}
		return "", true
	}
	policy := deployed(t, "vault/policy.hcl")
	if why, ok := whole(policy); !ok {
		t.Fatalf("with the whole policy: %s", why)
	}
	less := reduced(policy)
	if len(less) != 5 {
		t.Errorf("the policy has %d capabilities", len(less))
	}
	for without, policy := range less {
		if strings.HasPrefix(without, "list ") {
			continue // is for discovery: see TestDiscoverDenied
		}
		if _, ok := whole(policy); ok {
			t.Errorf("all goes well without the capability to %s: take it out of the policy", without)
		}
	}
}

// TestPrivilegesEnd: neither the daemon nor a receiver reads outside the prefix, and a receiver
// changes nothing.
func TestPrivilegesEnd(t *testing.T) {
	t.Parallel()
	v := vaulttest.Start(t)
	root := v.Client(v.Token).KVv2("secret")
	ctx := context.Background()
	for _, path := range []string{"tiw/1/whiteboard-push", "other", "tiwx/1"} {
		if _, err := root.Put(ctx, path, map[string]any{"x": "CANARY"}); err != nil {
			t.Fatal(err)
		}
	}
	denied := func(what string, err error) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), "403") {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, file := range []string{"policy.hcl", "receiver.hcl"} {
		client := v.Client(onlyToken(t, v, deployed(t, "vault/"+file)))
		kv := client.KVv2("secret")
		if _, err := kv.Get(ctx, "tiw/1/whiteboard-push"); err != nil {
			t.Errorf("%s: %v", file, err)
		}
		for _, path := range []string{"other", "tiwx/1"} {
			_, err := kv.Get(ctx, path)
			denied(file+" reads "+path, err)
			_, err = kv.Put(ctx, path, map[string]any{})
			denied(file+" writes "+path, err)
		}
		denied(file+" deletes", kv.Delete(ctx, "tiw/1/whiteboard-push"))
		denied(file+" deletes all", kv.DeleteMetadata(ctx, "tiw/1/whiteboard-push"))
		_, err := client.Logical().List("secret/metadata")
		denied(file+" lists what is beside the prefix", err)
		_, err = client.Sys().ListPolicies()
		denied(file+" lists policies", err)
		if file == "receiver.hcl" {
			_, err := kv.Put(ctx, "tiw/1/whiteboard-push", map[string]any{})
			denied("a receiver writes", err)
			_, err = client.Logical().List("secret/metadata/tiw")
			denied("a receiver lists", err)
			denied("a receiver destroys", kv.Destroy(ctx, "tiw/1/whiteboard-push", []int{1}))
		}
	}
}

// TestCAMPolicy: the policies allow what the daemon calls, each of it and nothing else; without
// any of the actions a first rotation does not succeed.
func TestCAMPolicy(t *testing.T) {
	t.Parallel()
	var known []string
	for _, s := range secrets.Services() {
		set, describe := tencent.APIs(s)
		known = append(known, "tiw:"+set, "tiw:"+describe)
	}
	slices.Sort(known)
	for _, name := range []string{"cam/policy.json", "cam/policy-per-application.json"} {
		var policy struct {
			Version   string
			Statement []struct {
				Effect   string
				Action   []string
				Resource []string
			}
		}
		if err := json.Unmarshal([]byte(deployed(t, name)), &policy); err != nil {
			t.Fatal(err)
		}
		var allowed []string
		for _, s := range policy.Statement {
			// CAM knows the applications of these three services alone.
			limited := slices.ContainsFunc(s.Resource, func(r string) bool { return r != "*" })
			if s.Effect != "allow" || limited && slices.ContainsFunc(s.Action, func(a string) bool { return strings.Contains(a, "WhiteboardPush") || strings.Contains(a, "PPTCheck") }) {
				t.Errorf("%s: %+v", name, s)
			}
			allowed = append(allowed, s.Action...)
		}
		if slices.Sort(allowed); policy.Version != "2.0" || !slices.Equal(allowed, known) {
			t.Fatalf("%s allows\n%v\nand the daemon calls\n%v", name, allowed, known)
		}
	}
	for _, s := range secrets.Services() {
		set, describe := tencent.APIs(s)
		for without, verb := range map[string]string{"": "", set: "Set", describe: "Describe"} {
			r := newRig(t)
			target := secrets.Target{SdkAppID: testTarget.SdkAppID, Service: s}
			r.server.SetKey(target.SdkAppID, string(s), oldKey)
			r.env = append(r.env, "TIWKEYD_TARGETS="+target.String(), "TIWKEYD_TENCENT_SITE=mainland", "TIWKEYD_PROPAGATION=0s")
			if without != "" {
				r.server.RefuseAlways(target.SdkAppID, verb, "UnauthorizedOperation")
			}
			out, code := r.run([]string{"rotate", "--timeout", "20s"})
			if (code == exitRefused) != (without != "") || (code == 0) != (without == "") {
				t.Errorf("%s without %q: %d", s, without, code)
			}
			if refused := strings.Contains(out, "UnauthorizedOperation"); refused != (without != "") || !strings.Contains(out, without) {
				t.Errorf("%s without %q:\n%s", s, without, tail(out))
			}
			if inForce := r.server.KeyInForce(target.SdkAppID, string(s)); (inForce == oldKey) != (without != "") {
				t.Errorf("%s without %q: the key in force is not the one it should be", s, without)
			}
		}
	}
}
