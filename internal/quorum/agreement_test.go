package quorum

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/peerlimit/peerlimit/internal/panel"
	"github.com/peerlimit/peerlimit/internal/wire"
)

// agreementOf returns the part of one of some witnesses of one panel.
func agreementOf(self string, witnesses ...string) *Agreement {
	a := NewAgreement(self, 0, AgreementIO{
		Now: func() int64 { return 0 }, Linked: func() []Candidate { return nil }, Count: func() int { return len(witnesses) },
		Needs: func() int { return 1 }, Silent: func(string) bool { return false },
	})
	a.state.Panel = panel.Panel{Origin: wire.Origin{Name: "a"}, Number: 7, Witnesses: witnesses, Members: len(witnesses)}
	return a
}

// A witness that has told others that a member is silent refuses its pings for a second. Its refusal names the panel like any answer,
// and must not become a part of the quorum under the next one.
func TestARefusalIsNoQuorumUnderAnyPanel(t *testing.T) {
	a := agreementOf("a", "a", "b", "c")
	id := a.ID()
	now := int64(time.Second)
	a.Answered("b", id, now, &wire.Pong{Refused: true, Panel: wire.PanelWord{ID: id}}, now)
	assert.False(t, a.HasQuorum(now))
	assert.Equal(t, []int64{never, never, never}, a.Seats(now).Granted)
	assert.True(t, a.answers("b", now), "it answers all the same, and may be asked to agree")

	a.Answered("b", id, now, &wire.Pong{Panel: wire.PanelWord{ID: id}}, now)
	assert.True(t, a.HasQuorum(now))
}
