package metrics_test

import (
	"context"
	"fmt"
	"log"
	"net/http/httptest"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/metrics"
)

func ExampleNewCollector() {
	events := metrics.NewEvents()
	node, err := peerlimit.Start(peerlimit.Config{OnEvent: events.Count})
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	collector, err := metrics.NewCollector(node)
	if err != nil {
		log.Fatal(err)
	}
	registry := prometheus.NewRegistry() // or prometheus.DefaultRegisterer
	registry.MustRegister(collector, events)

	perUser, err := node.Limiter("per-user", peerlimit.PerMinute(100))
	if err != nil {
		log.Fatal(err)
	}
	perUser.Allow(context.Background(), "bob")

	scrape := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(scrape, httptest.NewRequest("GET", "/metrics", nil))
	for _, line := range strings.Split(scrape.Body.String(), "\n") {
		if strings.HasPrefix(line, `peerlimit_decisions_total{limiter="per-user",origin="local"`) {
			fmt.Println(line)
		}
	}
	// Output:
	// peerlimit_decisions_total{limiter="per-user",origin="local",outcome="allowed"} 1
	// peerlimit_decisions_total{limiter="per-user",origin="local",outcome="denied"} 0
}

// How long takes last, where that is of interest.
func ExampleTakeDurations_Of() {
	node, err := peerlimit.Start(peerlimit.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	perUser, err := node.Limiter("per-user", peerlimit.PerMinute(100))
	if err != nil {
		log.Fatal(err)
	}
	durations := metrics.NewTakeDurations()
	prometheus.NewRegistry().MustRegister(durations)
	timed, err := durations.Of("per-user", perUser)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(timed.Allow(context.Background(), "bob"))
	// Output: true
}
