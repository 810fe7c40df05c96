package chaos

import "fmt"

// Result is what came of one run of a scenario, as it is written to -chaos.out. Times of events and samples are in
// milliseconds since the drivers began.
type Result struct {
	Scenario  string  `json:"scenario"`
	Guarantee string  `json:"guarantee"` // in words, as in docs/guarantees.md
	Program   string  `json:"program"`   // what limits: "peerlimit", or what -chaos.program says
	Started   string  `json:"started"`   // RFC 3339
	Seconds   float64 `json:"seconds"`   // how long the drivers asked
	Nodes     int     `json:"nodes"`     // at the start
	Events    []Event `json:"events"`
	Keys      []Keys  `json:"keys"`

	Calls       int     `json:"calls"`
	Failed      int     `json:"failed"`       // calls that got no decision from a node that was there to give one
	FirstFailed string  `json:"first_failed"` // why, of the first of them
	SlowestMS   float64 `json:"slowest_ms"`   // decision, by a node that was not stopped, killed or cut off from its caller
	NoiseMS     float64 `json:"noise_ms"`     // slowest answer that needs no decision, in the same time, from the same nodes

	// FullRateMS is how long after the last event the saturated key was admitted at its full rate again. Nil where the
	// scenario does not ask.
	FullRateMS *float64 `json:"full_rate_ms"`

	// Measured is what else this scenario looks at.
	Measured []Measure `json:"measured,omitempty"`

	// Violations say, for people, what was promised and not kept. None: the guarantee held.
	Violations []string `json:"violations"`
}

// Measure is one number that a scenario looks at, and what is promised of it.
type Measure struct {
	What     string  `json:"what"`
	Value    float64 `json:"value"`
	Unit     string  `json:"unit"`
	Promised string  `json:"promised"` // for people; empty: nothing
}

// Event is something that was done to the cluster.
type Event struct {
	AtMS float64 `json:"at_ms"`
	Text string  `json:"text"`
}

// Keys are the keys of one kind, of the same limit each.
type Keys struct {
	Kind   string  `json:"kind"` // "saturated" or "exhausted"
	Number int     `json:"number"`
	Burst  float64 `json:"burst"`
	Rate   float64 `json:"rate"` // tokens a second

	// In the run's worst window for the limit B + R·w, of the key with the greatest excess: tokens admitted, allowed by the
	// limit alone, and over it; and what this scenario's guarantee allows over it.
	Admitted    float64 `json:"admitted"`
	Allowed     float64 `json:"allowed"`
	Over        float64 `json:"over"`
	OverAllowed float64 `json:"over_allowed"`

	// UnderPercent is by how much less was admitted than B + R·w over the whole run; of saturated keys only.
	UnderPercent float64 `json:"under_percent"`

	// Offered and Served are takes asked for and admitted in each interval of SampleMS, all keys together.
	SampleMS int   `json:"sample_ms"`
	Offered  []int `json:"offered"`
	Served   []int `json:"served"`
}

// String says it in one line, for people.
func (m Measure) String() string {
	said := fmt.Sprintf("%s: %.2f %s", m.What, m.Value, m.Unit)
	if m.Promised != "" {
		said += "; promised: " + m.Promised
	}
	return said
}
