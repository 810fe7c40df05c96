package statuspage

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/internal/printable"
	"github.com/peerlimit/peerlimit/transport"
)

// report is what the page shows. As JSON, times are RFC 3339 and durations milliseconds. Names, keys and errors, which others
// have chosen, are in it as package printable writes them: tools that decode JSON print what they have decoded.
type report struct {
	Time     time.Time `json:"time"`
	Node     string    `json:"node"`
	UptimeMS float64   `json:"uptime_ms"`

	Healthy  bool     `json:"healthy"`
	Findings []string `json:"findings"` // what is not as it should be, for people

	Seeds    []seed        `json:"seeds"`
	Members  []member      `json:"members"`
	Limiters []limiter     `json:"limiters"`
	Busiest  []busyKey     `json:"busiest_keys"`
	Denied   []busyKey     `json:"most_denied_keys"`
	Question *answer       `json:"question,omitempty"`
	Events   []event       `json:"events"`
	Metrics  []metricGroup `json:"-"`

	Stats peerlimit.Stats `json:"stats"`
}

type seed struct {
	Seed   string `json:"seed"`
	Joined bool   `json:"joined"`
	Reason string `json:"reason,omitempty"` // why not
	Err    string `json:"err,omitempty"`
}

type member struct {
	Name       string `json:"name"`
	State      string `json:"state"`
	Self       bool   `json:"self,omitempty"`
	Link       string `json:"link,omitempty"`
	Addr       string `json:"addr"`
	RPCAddr    string `json:"rpc_addr"`
	Partitions int    `json:"partitions"`

	// EvidenceMS is how old the last response to a ping is; null for a member that is not pinged, or has not responded.
	EvidenceMS *float64 `json:"evidence_ms"`
}

type limiter struct {
	Name    string             `json:"name"`
	Limits  []string           `json:"limits"` // none: they depend on the key
	Allowed map[string]uint64  `json:"allowed"`
	Denied  map[string]uint64  `json:"denied"`
	Origins []peerlimit.Origin `json:"-"` // of either, in their order
}

type event struct {
	Time   time.Time `json:"time"`
	Kind   string    `json:"kind"`
	Member string    `json:"member,omitempty"`
	Detail string    `json:"detail,omitempty"`
}

// answer is how one key stands.
type answer struct {
	Limiter      string  `json:"limiter"`
	Key          string  `json:"key"`
	Again        string  `json:"-"`               // the key for the form, if it prints
	Fault        string  `json:"fault,omitempty"` // why nothing can be said
	Owner        string  `json:"owner,omitempty"`
	OwnerAddr    string  `json:"owner_addr,omitempty"`
	Here         bool    `json:"here,omitempty"`    // the owner is this node
	Standby      string  `json:"standby,omitempty"` // decides if the owner fails
	Limit        string  `json:"limit,omitempty"`
	Allowed      bool    `json:"allowed"`
	Remaining    float64 `json:"remaining"`
	RetryAfterMS float64 `json:"retry_after_ms"`
	ResetAfterMS float64 `json:"reset_after_ms"`
	DecidedBy    string  `json:"decided_by,omitempty"`
}

// metricGroup is a list of metrics under one heading.
type metricGroup struct {
	Name    string
	Metrics []metric
}

type metric struct {
	Name  string
	Value string
	Bad   bool // more than it should be
}

// askTimeout is how long the page waits for the holder of a key that is asked about.
const askTimeout = time.Second

// maxFault is how many bytes are shown of an error.
const maxFault = 1000

// report looks at the node.
func (p *Page) report(r *http.Request) *report {
	s := p.node.Status()
	rep := &report{
		Time: s.Time, Node: printable.Text(s.Self.Name), UptimeMS: milliseconds(s.Time.Sub(s.Started)), Stats: s.Stats,
		Findings: findings(&s), Metrics: metrics(&s.Stats), Seeds: []seed{},
	}
	rep.Stats.Limiters = make(map[string]peerlimit.LimiterStats, len(s.Stats.Limiters))
	for name, stats := range s.Stats.Limiters {
		rep.Stats.Limiters[printable.Text(name)] = stats
	}
	rep.Healthy = len(rep.Findings) == 0
	for _, s := range s.Seeds {
		rep.Seeds = append(rep.Seeds, seed{printable.Text(s.Seed), s.Joined, s.Reason, printable.Cut(s.Err, maxFault)})
	}
	for i := range s.Members {
		rep.Members = append(rep.Members, memberOf(&s.Members[i]))
	}
	for i := range s.Limiters {
		rep.Limiters = append(rep.Limiters, limiterOf(&s.Limiters[i]))
	}
	for _, e := range s.Events {
		rep.Events = append(rep.Events, event{e.Time, e.Kind.String(), printable.Text(e.Member), printable.Text(e.Detail)})
	}
	rep.Busiest, rep.Denied = p.keys.most(time.Now(), p.options.HideKeys)
	if q := r.URL.Query(); q.Has("limiter") || q.Has("key") {
		rep.Question = p.ask(r.Context(), q.Get("limiter"), q.Get("key"))
	}
	return rep
}

// findings says what is not as it should be, the worst first.
func findings(s *peerlimit.Status) []string {
	var all []string
	add := func(format string, values ...any) { all = append(all, printable.Text(fmt.Sprintf(format, values...))) }
	if !s.Majority {
		add("No majority: most members do not respond. This node decides by its share of each limit, 1/%d.", s.Stats.Known)
	}
	if s.Acquiring > 0 && s.Majority {
		add("%d partitions are on their way to this node: takes of their keys are passed on, or wait a moment.", s.Acquiring)
	}
	for _, seed := range s.Seeds {
		if seed.Reason != "" {
			add("Seed %s was not joined, because %s. It was found: %s.", seed.Seed, seed.Reason, printable.Cut(seed.Err, maxFault))
		}
	}
	for i := range s.Members {
		m := &s.Members[i]
		switch {
		case m.Self:
		case m.State == peerlimit.MemberLost:
			add("%s failed. Limits are still divided by it too, until it is back or forgotten.", m.Name)
		case m.Link == transport.LinkDown:
			add("There is no connection to %s.", m.Name)
		case m.Link == transport.LinkSuspect:
			add("%s does not respond.", m.Name)
		}
	}
	if s.Stats.Keys >= s.Stats.MaxKeys {
		add("MaxKeys is reached: each new key evicts another one.")
	}
	return all
}

func memberOf(m *peerlimit.MemberStatus) member {
	out := member{Name: printable.Text(m.Name), State: m.State.String(), Self: m.Self, Addr: m.Addr, RPCAddr: m.RPCAddr, Partitions: m.Partitions}
	if !m.Self {
		out.Link = m.Link.String()
	}
	if m.Witness && m.Evidence >= 0 {
		age := milliseconds(m.Evidence)
		out.EvidenceMS = &age
	}
	return out
}

func limiterOf(l *peerlimit.LimiterStatus) limiter {
	out := limiter{Name: printable.Text(l.Name), Limits: []string{}, Allowed: make(map[string]uint64), Denied: make(map[string]uint64)}
	for _, limit := range l.Limits {
		out.Limits = append(out.Limits, limit.String())
	}
	for origin, count := range l.Allowed {
		out.Allowed[origin.String()] = count
		out.Origins = append(out.Origins, origin)
	}
	for origin, count := range l.Denied {
		out.Denied[origin.String()] = count
		out.Origins = append(out.Origins, origin)
	}
	slices.Sort(out.Origins)
	out.Origins = slices.Compact(out.Origins)
	return out
}

// ask tells how a key stands, and takes nothing. What is asked about is repeated as far as it can be a name and a key.
func (p *Page) ask(ctx context.Context, limiterName, key string) *answer {
	a := &answer{Limiter: printable.Cut(limiterName, peerlimit.MaxNameLen), Key: printable.Cut(key, peerlimit.MaxKeyLen)}
	if printable.Is(key) && len(key) <= peerlimit.MaxKeyLen {
		a.Again = key
	}
	l, ok := p.limiterNamed(limiterName)
	if !ok {
		a.Fault = "This node has no limiter \"" + a.Limiter + "\"."
		return a
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	d, err := l.Peek(ctx, key)
	if err != nil {
		a.Fault = printable.Cut(err.Error(), maxFault)
		return a
	}
	place := l.Placement(key)
	a.Owner, a.OwnerAddr, a.Here = printable.Text(place.Owner.Name), place.Owner.RPCAddr, place.Owner.Self
	if len(place.Standbys) > 0 {
		a.Standby = printable.Text(place.Standbys[0].Name)
	}
	a.Limit, a.Allowed, a.Remaining = d.Limit.String(), d.Allowed, d.Remaining
	a.RetryAfterMS, a.ResetAfterMS = milliseconds(d.RetryAfter), milliseconds(d.ResetAfter)
	a.DecidedBy = d.Origin.String()
	return a
}

// limiterNamed finds a limiter by its name, or by what the page shows of it.
func (p *Page) limiterNamed(name string) (*peerlimit.Limiter, bool) {
	if l, ok := p.node.LimiterNamed(name); ok {
		return l, true
	}
	for _, l := range p.node.Status().Limiters {
		if printable.Text(l.Name) == name {
			return p.node.LimiterNamed(l.Name)
		}
	}
	return nil, false
}

// metrics groups what is counted.
func metrics(s *peerlimit.Stats) []metricGroup {
	count := func(name string, n uint64) metric { return metric{name, fmt.Sprint(n), false} }
	bad := func(name string, n uint64) metric { return metric{name, fmt.Sprint(n), n > 0} }
	return []metricGroup{
		{"Ownership", []metric{
			{"partitions owned, of 4,093", fmt.Sprint(s.PartitionsOwned), false},
			{"partitions held", fmt.Sprint(s.PartitionsHeld), s.PartitionsHeld < s.PartitionsOwned},
			count("times the owners changed", s.RingChanges),
			count("partitions acquired by transfer", s.AcquiredByTransfer),
			count("partitions acquired from a replica", s.AcquiredFromReplica),
			{"partitions acquired without state", fmt.Sprint(s.AcquiredEmpty), false},
			{"replica lag", s.ReplicaLag.Round(time.Millisecond).String(), s.ReplicaLag > time.Second},
		}},
		{"Buckets", []metric{
			{"in partitions held and in replicas", fmt.Sprintf("%d of at most %d", s.Keys, s.MaxKeys), s.Keys >= s.MaxKeys},
			{"for degraded decisions", fmt.Sprint(s.DegradedKeys), false},
			bad("evicted before they were full", s.Evicted),
			count("leases granted", s.LeasesGranted),
			count("leases not returned in time", s.LeasesExpired),
		}},
		{"Waiting", []metric{
			count("callers of this node that wait", uint64(s.Waiting)),
			count("turns that are waited for here", uint64(s.QueuedTurns)),
			count("turns that have come", s.ServedTurns),
			count("turns that were left before", s.LeftTurns),
			bad("turns that there was no room for", s.RefusedTurns),
		}},
		{"Requests to others, and from them", []metric{
			count("answered here", s.Served),
			count("passed on", s.PassedOn),
			bad("without a response in time", s.Timeouts),
			bad("that could not be sent", s.Unreachable),
			bad("not sent: too many were under way", s.Overloaded),
			bad("refused: malformed, or of another version", s.Refused),
			bad("connections of unauthenticated peers", s.Unauthenticated),
		}},
		{"Set-up", []metric{
			bad("peers of another Cluster", s.OtherCluster),
			bad("peers with another Secret", s.OtherSecret),
			{"seeds that are not joined", fmt.Sprint(s.SeedsNotJoined), s.SeedsNotJoined > 0},
			count("joins of seeds that failed", s.FailedJoins),
		}},
		{"Degraded mode", []metric{
			bad("decisions by a share", s.Degraded),
			bad("times without a majority", s.QuorumLosses),
			bad("refunds that were lost", s.LostRefunds),
			bad("debts that were dropped", s.DroppedDebts),
		}},
	}
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
