package metrics

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/peerlimit/peerlimit"
)

// Events counts what a node notices, by kind: links that went up and down, members that were lost, when decisions by
// shares began. Make one with [NewEvents].
type Events struct{ count *prometheus.CounterVec }

var _ prometheus.Collector = (*Events)(nil)

// NewEvents returns a counter of events. Its Count belongs into Config.OnEvent, and itself into a registry.
func NewEvents() *Events {
	e := &Events{prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "peerlimit_events_total",
		Help: "Events that the node noticed, by kind.",
	}, []string{"event"})}
	for kind := peerlimit.EventKind(1); !strings.HasPrefix(kind.String(), "EventKind("); kind++ {
		e.count.WithLabelValues(eventLabel(kind)) // those that never were are told of as 0
	}
	return e
}

// Count counts one event. It returns immediately and may be called from several goroutines.
func (e *Events) Count(event peerlimit.Event) {
	e.count.WithLabelValues(eventLabel(event.Kind)).Inc()
}

// Describe is for a registry.
func (e *Events) Describe(descs chan<- *prometheus.Desc) { e.count.Describe(descs) }

// Collect is for a registry.
func (e *Events) Collect(metrics chan<- prometheus.Metric) { e.count.Collect(metrics) }

// eventLabel is the name of a kind, such as link_down.
func eventLabel(kind peerlimit.EventKind) string { return strings.ReplaceAll(kind.String(), " ", "_") }
