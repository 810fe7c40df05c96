package metrics

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/peerlimit/peerlimit"
)

// TakeDurations is how long takes last, in seconds, by limiter and by the origin of the decision: those of origin "remote" were
// one request to another node and its response. Calls that end with an error have the origin "error". Make one with
// [NewTakeDurations].
type TakeDurations struct{ seconds *prometheus.HistogramVec }

var _ prometheus.Collector = (*TakeDurations)(nil)

// NewTakeDurations returns a histogram without observations. Limiters that are to be timed come from its Of.
func NewTakeDurations() *TakeDurations {
	return &TakeDurations{prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "peerlimit_take_duration_seconds",
		Help: "How long takes lasted, by limiter and by the origin of the decision.",
		// From a decision on this node to one after two requests without a response in time, 100 ms each.
		Buckets: []float64{1e-6, 1e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.15, 0.2, 0.25, 0.5, 1},
	}, []string{"limiter", "origin"})}
}

// TimedLimiter is a limiter whose Take, Allow and AllowN are timed. All else is the limiter's own. Get one from
// [TakeDurations.Of].
type TimedLimiter struct {
	*peerlimit.Limiter
	seconds *prometheus.HistogramVec
	name    string
}

// Of returns limiter with its takes timed under that name. It is as good as the limiter itself wherever a Taker is asked
// for. An error matches [ErrInvalid]: limiter is nil.
func (d *TakeDurations) Of(name string, limiter *peerlimit.Limiter) (*TimedLimiter, error) {
	if limiter == nil {
		return nil, fmt.Errorf("%w durations of %q: limiter is nil", ErrInvalid, name)
	}
	return &TimedLimiter{Limiter: limiter, seconds: d.seconds, name: labelValue(name)}, nil
}

// Forget drops the observations of a name, such as that of a tenant who has gone. Takes that are timed under it later begin anew.
func (d *TakeDurations) Forget(name string) {
	d.seconds.DeletePartialMatch(prometheus.Labels{"limiter": labelValue(name)})
}

// Take is the limiter's Take.
func (l *TimedLimiter) Take(ctx context.Context, key string, cost float64) (peerlimit.Decision, error) {
	began := time.Now()
	d, err := l.Limiter.Take(ctx, key, cost)
	lasted := time.Since(began)
	origin := d.Origin.String()
	if err != nil {
		origin = "error"
	}
	l.seconds.WithLabelValues(l.name, origin).Observe(lasted.Seconds())
	return d, err
}

// Allow is the limiter's Allow.
func (l *TimedLimiter) Allow(ctx context.Context, key string) bool { return l.AllowN(ctx, key, 1) }

// AllowN is the limiter's AllowN.
func (l *TimedLimiter) AllowN(ctx context.Context, key string, cost float64) bool {
	d, err := l.Take(ctx, key, cost)
	return err == nil && d.Allowed
}

// Describe is for a registry.
func (d *TakeDurations) Describe(descs chan<- *prometheus.Desc) { d.seconds.Describe(descs) }

// Collect is for a registry.
func (d *TakeDurations) Collect(metrics chan<- prometheus.Metric) { d.seconds.Collect(metrics) }
