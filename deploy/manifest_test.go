package deploy

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// manifest is what is in kubernetes.yaml.
type manifest struct {
	gossip, serving corev1.Service
	deployment      appsv1.Deployment
	budget          policyv1.PodDisruptionBudget
	policy          networkingv1.NetworkPolicy

	pod       corev1.PodSpec   // the deployment's
	container corev1.Container // the pod's only one
}

// load decodes the manifest into the types of the API. A field that they do not have or that is there twice is an error,
// and so is an object too many or too few.
func load(t *testing.T) *manifest {
	t.Helper()
	text, err := os.ReadFile("kubernetes.yaml")
	require.NoError(t, err)
	m := &manifest{}
	missing := map[string]any{
		"v1 Service httpserver-gossip":                  &m.gossip,
		"v1 Service httpserver":                         &m.serving,
		"apps/v1 Deployment httpserver":                 &m.deployment,
		"policy/v1 PodDisruptionBudget httpserver":      &m.budget,
		"networking.k8s.io/v1 NetworkPolicy httpserver": &m.policy,
	}
	documents := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		var head metav1.PartialObjectMetadata
		require.NoError(t, yaml.Unmarshal(document, &head))
		name := head.APIVersion + " " + head.Kind + " " + head.Name
		require.Contains(t, missing, name, "unknown, or there twice")
		require.NoError(t, yaml.UnmarshalStrict(document, missing[name]), name)
		delete(missing, name)
	}
	require.Empty(t, missing)
	m.pod = m.deployment.Spec.Template.Spec
	require.Len(t, m.pod.Containers, 1)
	m.container = m.pod.Containers[0]
	return m
}

// port is a port of a pod, seen from outside.
type port struct {
	number   int32
	protocol corev1.Protocol
}

var (
	gossipTCP = port{7946, corev1.ProtocolTCP}
	gossipUDP = port{7946, corev1.ProtocolUDP}
	takes     = port{7947, corev1.ProtocolTCP}
	http      = port{8080, corev1.ProtocolTCP}
)

// targets returns the container's ports that a service leads to.
func (m *manifest) targets(t *testing.T, service *corev1.Service) (ports []port) {
	t.Helper()
	for _, p := range service.Spec.Ports {
		at := m.named(t, p.TargetPort)
		require.Equal(t, at.protocol, p.Protocol, p.Name)
		ports = append(ports, at)
	}
	return ports
}

// named returns the container's port of that name.
func (m *manifest) named(t *testing.T, name intstr.IntOrString) port {
	t.Helper()
	for _, p := range m.container.Ports {
		if p.Name == name.StrVal {
			return port{p.ContainerPort, p.Protocol}
		}
	}
	require.Fail(t, "no such port", name.String())
	return port{}
}
