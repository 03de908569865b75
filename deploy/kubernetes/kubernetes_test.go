// Package kubernetes_test holds the manifests against the API's own types and rules.
package kubernetes_test

import (
	"os"
	"regexp"
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
	namespace  corev1.Namespace
	account    corev1.ServiceAccount
	deployment appsv1.Deployment
	network    networkingv1.NetworkPolicy
	budget     policyv1.PodDisruptionBudget
	monitor    monitoringv1.PodMonitor
}

// built decodes each document into its type; a member that the type does not have is an error.
func built(t *testing.T) *manifests {
	t.Helper()
	all, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), "base")
	if err != nil {
		t.Fatal(err)
	}
	m := &manifests{}
	into := map[string]any{"v1/Namespace": &m.namespace, "v1/ServiceAccount": &m.account, "apps/v1/Deployment": &m.deployment,
		"networking.k8s.io/v1/NetworkPolicy": &m.network, "policy/v1/PodDisruptionBudget": &m.budget, "monitoring.coreos.com/v1/PodMonitor": &m.monitor}
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
func TestRestricted(t *testing.T) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks())
	if err != nil {
		t.Fatal(err)
	}
	m := built(t)
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
func TestPod(t *testing.T) {
	m := built(t)
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

	token := spec.Volumes[0].Projected.Sources[0].ServiceAccountToken
	check(token.Audience == "vault" && c.VolumeMounts[0].Name == spec.Volumes[0].Name, "the token is not for Vault, or not mounted")
	check(env["VAULT_AUTH_METHOD"] == "kubernetes" && env["VAULT_K8S_ROLE"] == "tiwkeyd", "no login with the pod's token")
	check(env["VAULT_K8S_TOKEN_FILE"] == c.VolumeMounts[0].MountPath+"/"+token.Path, "the token's file is not where it is looked for")
}

// TestSelectors: each selector finds the pods of the Deployment, and only by a label that they have.
func TestSelectors(t *testing.T) {
	m := built(t)
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
func TestNetwork(t *testing.T) {
	n := built(t).network.Spec
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
	if len(out) != 4 || out[0] != 53 || out[1] != 53 || out[2] != 8200 || out[3] != 443 {
		t.Errorf("out: %v", out)
	}
}
