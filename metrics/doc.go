// Package metrics tells Prometheus what a node of peerlimit sees. It is a module of its own, so that the client library
// reaches only those who want it.
//
//	events := metrics.NewEvents()
//	node, err := peerlimit.Start(peerlimit.Config{OnEvent: events.Count})
//	if err != nil { ... }
//	collector, err := metrics.NewCollector(node)
//	if err != nil { ... }
//	durations := metrics.NewTakeDurations()
//	prometheus.MustRegister(collector, events, durations)
//
//	perUser, err := node.Limiter("per-user", peerlimit.PerMinute(100))
//	if err != nil { ... }
//	timed, err := durations.Of("per-user", perUser) // where it matters how long takes last
//
// [NewCollector] alone has all that matters; the other two are optional. deploy/grafana.json and deploy/alerts.yaml in the
// repository are a dashboard and alert rules over these metrics.
//
// No metric has a key for a label. The number of series of a node is that of its limiters times 12, and about 75; a limiter
// that is timed has 21 for each origin it meets. A limiter that its node has forgotten, see [peerlimit.Node.Limiter], has none any more;
// those of one that is timed stay until [TakeDurations.Forget].
//
// Two nodes in one process need a label to tell them apart: register with [prometheus.WrapRegistererWith].
package metrics
