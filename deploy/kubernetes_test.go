package deploy

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Everything means the same pods.
func TestSelectorsNameThePods(t *testing.T) {
	m := load(t)
	labels := m.deployment.Spec.Template.Labels
	require.NotEmpty(t, labels)
	assert.Equal(t, labels, m.gossip.Spec.Selector)
	assert.Equal(t, labels, m.serving.Spec.Selector)
	assert.Equal(t, labels, m.deployment.Spec.Selector.MatchLabels)
	assert.Equal(t, labels, m.budget.Spec.Selector.MatchLabels)
	assert.Equal(t, labels, m.policy.Spec.PodSelector.MatchLabels)
	require.Len(t, m.pod.TopologySpreadConstraints, 1)
	assert.Equal(t, labels, m.pod.TopologySpreadConstraints[0].LabelSelector.MatchLabels)
}

// Instances meet before they are ready, and clients come when they are.
func TestServices(t *testing.T) {
	m := load(t)
	assert.Equal(t, corev1.ClusterIPNone, m.gossip.Spec.ClusterIP)
	assert.True(t, m.gossip.Spec.PublishNotReadyAddresses)
	assert.ElementsMatch(t, []port{gossipTCP, gossipUDP, takes}, m.targets(t, &m.gossip))

	assert.NotEqual(t, corev1.ClusterIPNone, m.serving.Spec.ClusterIP)
	assert.False(t, m.serving.Spec.PublishNotReadyAddresses)
	assert.ElementsMatch(t, []port{http}, m.targets(t, &m.serving))
}

// One joins before one leaves, and never two go at once.
func TestRollout(t *testing.T) {
	m := load(t)
	require.NotNil(t, m.deployment.Spec.Replicas)
	assert.GreaterOrEqual(t, *m.deployment.Spec.Replicas, int32(3), "two are no majority when one of them dies")

	assert.Equal(t, appsv1.RollingUpdateDeploymentStrategyType, m.deployment.Spec.Strategy.Type)
	rolling := m.deployment.Spec.Strategy.RollingUpdate
	require.NotNil(t, rolling)
	one, none := intstr.FromInt32(1), intstr.FromInt32(0)
	assert.Equal(t, &one, rolling.MaxSurge)
	assert.Equal(t, &none, rolling.MaxUnavailable)
	assert.Equal(t, &one, m.budget.Spec.MaxUnavailable)
}

// The startup probe waits for WaitReady, however long the program does. The readiness probe asks for nothing but an answer,
// and there is no liveness probe: neither must end or hide an instance because of the others.
func TestProbes(t *testing.T) {
	m := load(t)
	startup, readiness := m.container.StartupProbe, m.container.ReadinessProbe
	require.NotNil(t, startup)
	require.NotNil(t, readiness)
	assert.Nil(t, m.container.LivenessProbe)
	for _, probe := range []*corev1.Probe{startup, readiness} {
		require.NotNil(t, probe.HTTPGet)
		assert.Equal(t, "/healthz", probe.HTTPGet.Path) // says yes as long as the process serves
		assert.Equal(t, http, m.named(t, probe.HTTPGet.Port))
	}
	patience := time.Duration(startup.PeriodSeconds*startup.FailureThreshold) * time.Second
	assert.Greater(t, patience, joinTimeout+durationIn(t, "readyTimeout"))
}

// joinTimeout is how long peerlimit.Start may take.
const joinTimeout = 5 * time.Second

// Before an instance is killed it has been taken out of service, has answered what had arrived, and has left.
func TestGracePeriod(t *testing.T) {
	m := load(t)
	require.NotNil(t, m.container.Lifecycle)
	require.NotNil(t, m.container.Lifecycle.PreStop)
	require.NotNil(t, m.container.Lifecycle.PreStop.Sleep)
	sleep := time.Duration(m.container.Lifecycle.PreStop.Sleep.Seconds) * time.Second
	assert.Positive(t, sleep)
	require.NotNil(t, m.pod.TerminationGracePeriodSeconds)
	grace := time.Duration(*m.pod.TerminationGracePeriodSeconds) * time.Second
	assert.Greater(t, grace, sleep+durationIn(t, "drainTimeout")+durationIn(t, "leaveTimeout"))
}

// A throttled instance does not answer in time, so there is no limit of processor time; and the collector knows that of memory.
func TestResources(t *testing.T) {
	m := load(t)
	assert.True(t, m.container.Resources.Limits.Cpu().IsZero())
	assert.False(t, m.container.Resources.Requests.Cpu().IsZero())
	limit := m.container.Resources.Limits.Memory().Value()
	assert.Positive(t, limit)
	i := slices.IndexFunc(m.container.Env, func(e corev1.EnvVar) bool { return e.Name == "GOMEMLIMIT" })
	require.GreaterOrEqual(t, i, 0)
	assert.InEpsilon(t, 0.9*float64(limit), bytesOf(t, m.container.Env[i].Value), 0.01)
}

// The pod's own address is bound, and what is mounted is what the program reads.
func TestThePodsAddressAndSecret(t *testing.T) {
	m := load(t)
	i := slices.IndexFunc(m.container.Env, func(e corev1.EnvVar) bool { return e.Name == "POD_IP" })
	require.GreaterOrEqual(t, i, 0)
	require.NotNil(t, m.container.Env[i].ValueFrom)
	require.NotNil(t, m.container.Env[i].ValueFrom.FieldRef)
	assert.Equal(t, "status.podIP", m.container.Env[i].ValueFrom.FieldRef.FieldPath)
	assert.Contains(t, m.container.Args, "-bind=$(POD_IP)")
	assert.Contains(t, m.container.Args, "-join="+m.gossip.Name)

	require.Len(t, m.container.VolumeMounts, 1)
	require.Len(t, m.pod.Volumes, 1)
	mount, volume := m.container.VolumeMounts[0], m.pod.Volumes[0]
	assert.Equal(t, volume.Name, mount.Name)
	assert.True(t, mount.ReadOnly)
	require.NotNil(t, volume.Secret)
	assert.Contains(t, m.container.Args, "-secret-file="+mount.MountPath+"/secret")
}

// HTTP is open, and the cluster's ports are open to the cluster alone.
func TestNetworkPolicy(t *testing.T) {
	m := load(t)
	assert.Equal(t, []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}, m.policy.Spec.PolicyTypes)
	open, inside := map[port]bool{}, map[port]bool{}
	for _, rule := range m.policy.Spec.Ingress {
		into := open
		if len(rule.From) > 0 {
			require.Len(t, rule.From, 1)
			from := rule.From[0]
			require.NotNil(t, from.PodSelector)
			assert.Equal(t, m.deployment.Spec.Template.Labels, from.PodSelector.MatchLabels)
			assert.Nil(t, from.NamespaceSelector)
			into = inside
		}
		require.NotEmpty(t, rule.Ports, "every port")
		for _, p := range rule.Ports {
			require.NotNil(t, p.Port)
			require.NotNil(t, p.Protocol)
			assert.Nil(t, p.EndPort)
			into[port{p.Port.IntVal, *p.Protocol}] = true
		}
	}
	assert.ElementsMatch(t, []port{http}, slices.Collect(maps.Keys(open)))
	assert.ElementsMatch(t, []port{gossipTCP, gossipUDP, takes}, slices.Collect(maps.Keys(inside)))
}
