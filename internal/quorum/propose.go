package quorum

import (
	"context"

	"github.com/peerlimit/peerlimit/internal/panel"
	"github.com/peerlimit/peerlimit/internal/wire"
)

// The messages by which witnesses agree on the next panel: one asks all to promise, and then to accept; see internal/panel.

// propose begins a proposal, with mu held.
func (a *Agreement) propose(next panel.Panel, misses map[string]bool, now int64) (adopted bool) {
	answers := func(name string) bool { return a.answers(name, now) }
	prepare, err := a.state.Propose(next, answers, now)
	if err != nil {
		return false
	}
	a.begunAt = now
	a.askAll(wire.PanelRequest{ID: prepare.ID, Ballot: prepare.Ballot})
	promise, err := a.state.OnPrepare(prepare)
	if err != nil {
		return false
	}
	return a.promised(a.state.Self, promise, func(name string) bool { return misses[name] }, now)
}

// promised takes in a witness's promise, with mu held.
func (a *Agreement) promised(from string, p panel.Promise, misses func(string) bool, now int64) (adopted bool) {
	accept, ready, err := a.state.OnPromise(from, p, func(name string) bool { return a.answers(name, now) }, now)
	if err != nil || !ready {
		return false
	}
	a.askAll(wire.PanelRequest{ID: a.state.Panel.ID(), Ballot: accept.Ballot, Panel: wire.Panel(accept.Panel)})
	return a.accepting(accept, misses, now)
}

// accepting accepts a panel, with mu held, and takes in that it has.
func (a *Agreement) accepting(accept panel.Accept, misses func(string) bool, now int64) (adopted bool) {
	if err := a.state.OnAccept(accept, a.look(misses, now), now); err != nil {
		return false
	}
	return a.adopting(now, func() bool { return a.state.Hear(a.state.Self, a.state.Tell(), now) })
}

// askAll asks all other witnesses, with mu held.
func (a *Agreement) askAll(q wire.PanelRequest) {
	for _, w := range a.state.Panel.Witnesses {
		if w != a.state.Self {
			a.begin(func(ctx context.Context) { a.ask(ctx, w, q) })
		}
	}
}

// ask asks one witness, and takes in what it answers.
func (a *Agreement) ask(ctx context.Context, witness string, q wire.PanelRequest) {
	ctx, cancel := context.WithTimeout(ctx, AnswerAge)
	defer cancel()
	answer, err := a.io.Ask(ctx, witness, q)
	if err != nil {
		return
	}
	misses := a.missed()
	now := a.io.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.sight(witness)
	switch {
	case s == nil:
		return
	case !answer.Yes:
		if answer.Promised != (wire.Ballot{}) {
			a.state.OnOutbid(answer.Promised)
		}
	case q.Panel.Number == 0:
		p := panel.Promise{ID: q.ID, Ballot: q.Ballot, Accepted: acceptance(answer.Word.Accepted)}
		a.promised(witness, p, misses, now)
	}
	a.hearWord(witness, s, answer.Word, now)
}

// missed returns which of the witnesses this node misses, and who is leaving. It is called without mu.
func (a *Agreement) missed() func(string) bool {
	misses := make(map[string]bool)
	for _, w := range a.Panel().Witnesses {
		misses[w] = a.io.Silent(w)
	}
	addLeaving(misses, a.io.Linked())
	return func(name string) bool { return misses[name] }
}

// OnRequest answers another member's request as a witness.
func (a *Agreement) OnRequest(from string, q *wire.PanelRequest) (answer wire.PanelAnswer, adopted bool) {
	misses := a.missed()
	now := a.io.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case q.Ballot.By != from: // each bids in its own name
	case q.Panel.Number == 0:
		_, err := a.state.OnPrepare(panel.Prepare{ID: q.ID, Ballot: q.Ballot})
		answer.Yes = err == nil
	default:
		accept := panel.Accept{Ballot: q.Ballot, Panel: panel.Panel(q.Panel)}
		err := a.state.OnAccept(accept, a.look(misses, now), now)
		answer.Yes = err == nil
	}
	if !answer.Yes && q.Ballot.Below(a.state.Promised) {
		answer.Promised = a.state.Promised
	}
	answer.Word = a.word(q.ID)
	if answer.Yes && q.Panel.Number != 0 {
		adopted = a.adopting(now, func() bool { return a.state.Hear(a.state.Self, a.state.Tell(), now) })
	}
	return answer, adopted
}
