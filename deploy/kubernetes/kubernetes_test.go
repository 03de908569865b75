// Package kubernetes_test holds the manifests against the API's own types and rules.
package kubernetes_test

import (
	"crypto/x509"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	psa "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// manifests are what `kubectl apply -k` would send.
type manifests struct {
	secret     corev1.Secret
	authority  corev1.ConfigMap
	namespace  corev1.Namespace
	account    corev1.ServiceAccount
	deployment appsv1.Deployment
	network    networkingv1.NetworkPolicy
	budget     policyv1.PodDisruptionBudget
	monitor    monitoringv1.PodMonitor
}

// each tries what the base gives, and what the example of an overlay makes of it.
func each(t *testing.T, try func(t *testing.T, m *manifests)) {
	for _, folder := range []string{"base", "example"} {
		t.Run(folder, func(t *testing.T) { try(t, built(t, folder)) })
	}
}

// built decodes each document into its type; a member that the type does not have is an error.
func built(t *testing.T, folder string) *manifests {
	t.Helper()
	all, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), folder)
	if err != nil {
		t.Fatal(err)
	}
	m := &manifests{}
	into := map[string]any{"v1/Namespace": &m.namespace, "v1/ServiceAccount": &m.account, "apps/v1/Deployment": &m.deployment,
		"networking.k8s.io/v1/NetworkPolicy": &m.network, "policy/v1/PodDisruptionBudget": &m.budget, "monitoring.coreos.com/v1/PodMonitor": &m.monitor}
	if folder == "example" {
		into["v1/Secret"], into["v1/ConfigMap"] = &m.secret, &m.authority
	}
	for _, r := range all.Resources() {
		kind := r.GetApiVersion() + "/" + r.GetKind()
		to := into[kind]
		if to == nil {
			t.Fatalf("%s is there twice, or is not expected", kind)
		}
		delete(into, kind)
		text, err := r.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		if err := yaml.UnmarshalStrict(text, to); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		if kind != "v1/Namespace" && r.GetNamespace() != m.namespace.Name {
			t.Errorf("%s is in the namespace %q", kind, r.GetNamespace())
		}
	}
	for kind := range into {
		t.Errorf("there is no %s", kind)
	}
	return m
}

// TestRestricted has the Pod Security Standard's own evaluator judge the pod.
func TestRestricted(t *testing.T) { each(t, restricted) }

func restricted(t *testing.T, m *manifests) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks())
	if err != nil {
		t.Fatal(err)
	}
	pod := m.deployment.Spec.Template
	for _, r := range evaluator.EvaluatePod(psa.LevelVersion{Level: psa.LevelRestricted, Version: psa.LatestVersion()}, &pod.ObjectMeta, &pod.Spec) {
		if !r.Allowed {
			t.Errorf("%s: %s", r.ForbiddenReason, r.ForbiddenDetail)
		}
	}
	if m.namespace.Labels["pod-security.kubernetes.io/enforce"] != "restricted" {
		t.Error("the namespace does not enforce the standard")
	}
}

// TestPod is what the standard does not ask for.
func TestPod(t *testing.T) { each(t, wholePod) }

func wholePod(t *testing.T, m *manifests) {
	spec := m.deployment.Spec.Template.Spec
	if len(spec.Containers) != 1 || *m.deployment.Spec.Replicas != 2 {
		t.Fatal("not two replicas of one container")
	}
	c := spec.Containers[0]
	check := func(ok bool, what string) {
		t.Helper()
		if !ok {
			t.Error(what)
		}
	}
	off := func(b *bool) bool { return b != nil && !*b }
	check(c.SecurityContext.ReadOnlyRootFilesystem != nil && *c.SecurityContext.ReadOnlyRootFilesystem, "the root file system can be written")
	check(off(spec.AutomountServiceAccountToken) && off(m.account.AutomountServiceAccountToken), "a token for the Kubernetes API is mounted")
	check(spec.ServiceAccountName == m.account.Name, "the pod runs as another account")
	check(*spec.TerminationGracePeriodSeconds >= 10, "the daemon is killed before it has ended")
	check(len(spec.TopologySpreadConstraints) > 0, "both replicas may be on one node")
	check(regexp.MustCompile(`@sha256:[0-9a-f]{64}$`).MatchString(c.Image), "the image is not pinned by its digest")
	check(!c.Resources.Requests.Cpu().IsZero() && !c.Resources.Requests.Memory().IsZero() && !c.Resources.Limits.Memory().IsZero(), "no resources")

	env := map[string]string{}
	known, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range c.Env {
		env[e.Name] = e.Value
		check(strings.Contains(string(known), "`"+e.Name+"`"), "the README does not know "+e.Name)
		if strings.Contains(e.Name, "SECRET") {
			check(e.Value == "" && e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil, e.Name+" is in the manifest")
		}
	}
	port := c.Ports[0]
	check(env["TIWKEYD_HTTP_ADDR"] == ":9469" && port.ContainerPort == 9469, "it does not serve where it is asked")
	check(c.LivenessProbe.HTTPGet.Path == "/healthz" && c.LivenessProbe.HTTPGet.Port.StrVal == port.Name, "liveness")
	check(c.ReadinessProbe.HTTPGet.Path == "/readyz" && c.ReadinessProbe.HTTPGet.Port.StrVal == port.Name, "readiness")
	check(*m.monitor.Spec.PodMetricsEndpoints[0].Port == port.Name, "Prometheus asks another port")

	mounted := map[string]string{}
	for _, v := range c.VolumeMounts {
		mounted[v.Name] = v.MountPath
	}
	volume := spec.Volumes[slices.IndexFunc(spec.Volumes, func(v corev1.Volume) bool { return v.Projected != nil })]
	token := volume.Projected.Sources[0].ServiceAccountToken
	check(token.Audience == "vault" && mounted[volume.Name] != "", "the token is not for Vault, or not mounted")
	check(env["VAULT_AUTH_METHOD"] == "kubernetes" && env["VAULT_K8S_ROLE"] == "tiwkeyd", "no login with the pod's token")
	check(env["VAULT_K8S_TOKEN_FILE"] == mounted[volume.Name]+"/"+token.Path, "the token's file is not where it is looked for")
}

// TestSelectors: each selector finds the pods of the Deployment, and only by a label that they have.
func TestSelectors(t *testing.T) { each(t, selectors) }

func selectors(t *testing.T, m *manifests) {
	pod := labels.Set(m.deployment.Spec.Template.Labels)
	for what, s := range map[string]*metav1.LabelSelector{"deployment": m.deployment.Spec.Selector, "budget": m.budget.Spec.Selector,
		"network policy": &m.network.Spec.PodSelector, "monitor": &m.monitor.Spec.Selector, "spread": m.deployment.Spec.Template.Spec.TopologySpreadConstraints[0].LabelSelector} {
		selector, err := metav1.LabelSelectorAsSelector(s)
		if err != nil || selector.Empty() || !selector.Matches(pod) {
			t.Errorf("%s: %v, %v", what, selector, err)
		}
	}
	if m.budget.Spec.MinAvailable.IntValue() != 1 {
		t.Error("all replicas may be evicted at once")
	}
}

// TestNetwork: nothing comes in but monitoring, and nothing goes out but to names, Vault and HTTPS.
func TestNetwork(t *testing.T) { each(t, network) }

func network(t *testing.T, m *manifests) {
	n := m.network.Spec
	if len(n.PolicyTypes) != 2 || len(n.Ingress) != 1 || len(n.Ingress[0].From) != 1 || len(n.Ingress[0].Ports) != 1 || n.Ingress[0].Ports[0].Port.IntValue() != 9469 {
		t.Errorf("in: %+v", n.Ingress)
	}
	var out []int
	for _, e := range n.Egress {
		if len(e.To) == 0 || len(e.Ports) == 0 {
			t.Error("a rule without addresses or ports allows all")
		}
		for _, p := range e.Ports {
			out = append(out, p.Port.IntValue())
		}
	}
	for _, resolver := range []string{"169.254.20.10/32", "169.254.169.254/32"} {
		if !slices.ContainsFunc(n.Egress[0].To, func(p networkingv1.NetworkPolicyPeer) bool { return p.IPBlock != nil && p.IPBlock.CIDR == resolver }) {
			t.Errorf("names are not asked for at %s, where a node's resolver may be", resolver)
		}
	}
	if len(out) != 4 || out[0] != 53 || out[1] != 53 || out[2] != 8200 || out[3] != 443 {
		t.Errorf("out: %v", out)
	}
}

// TestExample: the pods of the overlay get the Secret, the authority and the image that it brings, and may ask the
// cluster's DNS service for names also where a resolver of the node takes what is sent there.
func TestExample(t *testing.T) {
	base, m := built(t, "base"), built(t, "example")
	spec := m.deployment.Spec.Template.Spec
	c := spec.Containers[0]
	if c.Image == base.deployment.Spec.Template.Spec.Containers[0].Image {
		t.Error("the image is the base's")
	}
	env := map[string]corev1.EnvVar{}
	for _, e := range c.Env {
		env[e.Name] = e
	}
	for _, name := range []string{"TENCENTCLOUD_SECRET_ID", "TENCENTCLOUD_SECRET_KEY"} {
		if ref := env[name].ValueFrom.SecretKeyRef; ref.Name != m.secret.Name || len(m.secret.Data[ref.Key]) == 0 {
			t.Errorf("%s is taken from %s of %s", name, ref.Key, ref.Name)
		}
	}
	i := slices.IndexFunc(spec.Volumes, func(v corev1.Volume) bool { return v.ConfigMap != nil && v.ConfigMap.Name == m.authority.Name })
	if i < 0 {
		t.Fatalf("the authority %s is no volume", m.authority.Name)
	}
	at := slices.IndexFunc(c.VolumeMounts, func(v corev1.VolumeMount) bool { return v.Name == spec.Volumes[i].Name })
	if at < 0 {
		t.Fatal("the authority is not mounted")
	}
	file, ok := strings.CutPrefix(env["VAULT_CACERT"].Value, c.VolumeMounts[at].MountPath+"/")
	if !ok || !x509.NewCertPool().AppendCertsFromPEM([]byte(m.authority.Data[file])) {
		t.Errorf("there is no certificate at %s", env["VAULT_CACERT"].Value)
	}
	if got, had := len(m.network.Spec.Egress[0].To), len(base.network.Spec.Egress[0].To); got != had+1 {
		t.Errorf("names are asked for at %d places, and at %d by the base", got, had)
	}
	if to := m.network.Spec.Egress[1].To; len(to) != 1 || to[0].IPBlock == nil {
		t.Errorf("Vault is asked at %v", to)
	}
}
