package main

import (
	"encoding/json"
	"net/http"
	"slices"
	"time"
)

// What the page asks for twice a second, as JSON. Times are in seconds since the load began.

// pageState is everything that is shown.
type pageState struct {
	Now    float64 `json:"now"` // 0 before the load
	End    float64 `json:"end"` // when the run ends
	Rate   float64 `json:"rate"`
	Burst  float64 `json:"burst"`
	Load   float64 `json:"load"`
	Split  bool    `json:"split"`
	Held   bool    `json:"held"`
	Judged float64 `json:"judged"` // until when

	Problems []string    `json:"problems"`
	Keys     []pageKey   `json:"keys"`
	Nodes    []pageNode  `json:"nodes"`
	Arcs     []pageArc   `json:"arcs"` // the ring
	Extras   []pageExtra `json:"extras"`
	Points   []pagePoint `json:"points"`
	Events   []pageEvent `json:"events"`
}

// pageKey is a key, and the window that is the furthest above B + R·w.
type pageKey struct {
	Name     string   `json:"name"`
	Times    float64  `json:"times"` // of the limit that are asked for
	Owner    string   `json:"owner"`
	Standby  string   `json:"standby"`
	Place    float64  `json:"place"` // on the ring, from 0 to 1
	From     float64  `json:"from"`
	To       float64  `json:"to"`
	Admitted float64  `json:"admitted"`
	Bound    float64  `json:"bound"`
	Extra    float64  `json:"extra"`
	Problems []string `json:"problems"`
}

type pageNode struct {
	Name  string   `json:"name"`
	State string   `json:"state"` // starting, running, frozen, cut off, leaving, killed, left
	PID   int      `json:"pid"`
	Owns  []string `json:"owns"`
	Share float64  `json:"share"` // of the ring, from 0 to 1
}

type pageArc struct {
	Owner   string `json:"o"`
	Standby string `json:"h"`
}

type pageExtra struct {
	Key    string  `json:"key"`
	What   string  `json:"what"`
	Tokens float64 `json:"tokens"`
	Why    string  `json:"why"`
}

// pagePoint has numbers per second.
type pagePoint struct {
	At       float64            `json:"t"`
	Offered  float64            `json:"offered"`
	Admitted float64            `json:"admitted"`
	Limit    float64            `json:"limit"`
	Nodes    map[string]float64 `json:"nodes"`
	Origins  map[string]float64 `json:"origins"`
	Keys     map[string]float64 `json:"keys"`
}

type pageEvent struct {
	At   float64 `json:"t"`
	Done bool    `json:"done"`
	Text string  `json:"text"`
}

// state answers with everything that is shown.
func (p *page) state(w http.ResponseWriter, _ *http.Request) {
	s := p.demo.pageState()
	p.describe(&s)
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(s) // an error means that the browser is gone
}

// describe adds what the page has kept.
func (p *page) describe(s *pageState) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.Held, s.Judged, s.Problems = p.verdict.held(), p.verdict.To.Seconds(), append([]string{}, p.verdict.Problems...)
	for i, k := range p.verdict.Keys {
		key := &s.Keys[i]
		key.From, key.To = k.Worst.From.Seconds(), k.Worst.To.Seconds()
		key.Admitted, key.Bound, key.Extra = k.Worst.Admitted, k.Worst.Bound, k.Worst.Extra
		key.Problems = append(key.Problems, k.Problems...)
	}
	for _, x := range p.verdict.Extras {
		for _, t := range x.Terms {
			s.Extras = append(s.Extras, pageExtra{x.Key, x.cause(), t.Tokens, t.Why})
		}
	}
	for _, x := range p.points {
		s.Points = append(s.Points, pagePoint{
			At: x.at.Seconds(), Offered: float64(x.Offered) / x.took.Seconds(), Admitted: float64(x.Admitted) / x.took.Seconds(),
			Limit: x.limit, Nodes: perSecond(x.ByNode, x.took), Origins: perSecond(x.ByOrigin, x.took), Keys: perSecond(x.ByKey, x.took),
		})
	}
	for _, e := range p.events {
		s.Events = append(s.Events, pageEvent{e.At.Seconds(), e.Done, e.Text})
	}
}

func perSecond(counts map[string]int, took time.Duration) map[string]float64 {
	rates := make(map[string]float64)
	for name, n := range counts {
		rates[name] = float64(n) / took.Seconds()
	}
	return rates
}

// pageState tells how the nodes are, and what is asked of them.
func (d *demo) pageState() pageState {
	d.mu.Lock()
	s := pageState{
		Now: d.clock.elapsed().Seconds(), End: d.options.duration.Seconds(),
		Rate: d.limit.Tokens, Burst: d.limit.Burst, Load: d.load, Split: len(d.apart) > 0,
		Problems: []string{}, Nodes: []pageNode{}, Arcs: []pageArc{}, Extras: []pageExtra{}, Points: []pagePoint{}, Events: []pageEvent{},
	}
	nodes, apart := slices.Clone(d.nodes), d.apart
	d.mu.Unlock()

	names := namesOf(slices.DeleteFunc(d.live(), func(p *process) bool { return slices.Contains(apart, p.name) }))
	view, _ := d.timeline.view(names)
	for _, x := range demands {
		s.Keys = append(s.Keys, pageKey{
			Name: x.key, Times: x.times, Owner: view.Owners[x.key], Standby: view.Standbys[x.key], Problems: []string{},
			Place: float64(view.Parts[x.key]) / partitionCount,
		})
	}
	share := make(map[string]float64)
	for _, a := range view.Arcs {
		s.Arcs = append(s.Arcs, pageArc(a))
		share[a.Owner] += 1 / float64(len(view.Arcs))
	}
	for _, p := range nodes {
		n := pageNode{Name: p.name, State: d.nodeState(p, apart), PID: p.cmd.Process.Pid, Owns: []string{}, Share: share[p.name]}
		for _, key := range keyNames() {
			if view.Owners[key] == p.name {
				n.Owns = append(n.Owns, key)
			}
		}
		s.Nodes = append(s.Nodes, n)
	}
	return s
}

// nodeState is how a node is, for people.
func (d *demo) nodeState(p *process, apart []string) string {
	ended := false
	select {
	case <-p.ended:
		ended = true
	default:
	}
	switch fate := p.fate.Load(); {
	case fate == leaving && ended:
		return "left"
	case ended || fate == ending:
		return "killed"
	case fate == leaving:
		return "leaving"
	case fate == stopped:
		return "frozen"
	case !d.driver.has(p):
		return "starting"
	case slices.Contains(apart, p.name):
		return "cut off"
	}
	return "running"
}
