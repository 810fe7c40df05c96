package metrics_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The dashboard and the rules name only what there is, and every metric has its place in one of them.
func TestDocumentsNameTheMetricsThatThereAre(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(all(t)...)
	families, err := registry.Gather()
	require.NoError(t, err)
	var metrics []string
	for _, family := range families {
		metrics = append(metrics, family.GetName())
	}
	require.NotEmpty(t, metrics)

	named := make(map[string]bool)
	for _, document := range []string{"../deploy/grafana.json", "../deploy/alerts.yaml"} {
		text, err := os.ReadFile(document)
		require.NoError(t, err)
		for _, name := range regexp.MustCompile(`\bpeerlimit_\w+`).FindAllString(string(text), -1) {
			name = strings.TrimSuffix(name, "_bucket") // what PromQL calls the parts of a histogram
			assert.Contains(t, metrics, name, document)
			named[name] = true
		}
	}
	for _, name := range metrics {
		assert.True(t, named[name], "%s is in neither", name)
	}
}
