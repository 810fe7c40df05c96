package membership

import "slices"

// ChangeKind is what has become of a member.
type ChangeKind uint8

const (
	Joined       ChangeKind = iota // it was not there before, or had failed
	BeganToLeave                   // it has announced that it goes
	HasFailed                      // gossip has given it up without a goodbye; it still counts
	HasLeft                        // it is gone, with a goodbye
	Forgotten                      // it had failed, and does not count any more
)

// Change is one member that has changed from one view to the next.
type Change struct {
	Info
	Kind ChangeKind
}

// Since returns what has changed since the view before: those that are there in the order of their names, then those that
// are not any more. last may be nil: nobody was there.
func (v *View) Since(last *View) (changes []Change) {
	if last == nil {
		last = &View{}
	}
	for _, m := range v.Members {
		old, known := last.find(m.Name)
		switch {
		case known && eventful(old.State) == eventful(m.State):
		case m.State == Leaving:
			changes = append(changes, Change{m, BeganToLeave})
		case m.State == Failed:
			changes = append(changes, Change{m, HasFailed})
		case !known || old.State == Failed:
			changes = append(changes, Change{m, Joined})
		}
	}
	for _, m := range last.Members {
		if _, still := v.find(m.Name); still { // one that has failed is listed while it counts
			continue
		}
		isDead := slices.ContainsFunc(v.GivenUp, func(i Info) bool { return i.Name == m.Name })
		switch {
		case m.State == Failed:
			changes = append(changes, Change{m, Forgotten})
		case isDead: // gossip takes longer to find out
			changes = append(changes, Change{m, HasFailed}, Change{m, Forgotten})
		default:
			changes = append(changes, Change{m, HasLeft})
		}
	}
	return changes
}

// eventful returns a state as far as a change of it is told.
func eventful(s State) State {
	if s == Suspect {
		return Alive
	}
	return s
}
