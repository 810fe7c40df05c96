package panel

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/peerlimit/peerlimit/internal/wire"
)

const (
	MaxWitnesses = 31      // in a panel: a majority of 16 fails less often than any cluster should
	MaxMembers   = 1 << 16 // that a panel may count
	MaxName      = 255     // bytes of a member's name

	// MaxLeap bounds by how much a number, an era or a ballot that others tell of may be above one's own. A panel follows
	// another at most twice a second, so nobody falls behind by so many in 60 years: a higher one is a fault.
	MaxLeap = 1 << 32

	// AnswerAge is how long an answer of a witness counts, from the sending of the ping. A witness accepts the panel after its
	// own only when it adopted its own so long ago [NextPanelWaits].
	AnswerAge = 500 * time.Millisecond
)

// ErrInvalid is wrapped by the errors for panels and messages that no member of this version makes.
var ErrInvalid = errors.New("peerlimit: panel is invalid")

// Panel is an agreed set of witnesses. It is not changed once it is made. The zero value is no panel.
type Panel struct {
	Origin    wire.Origin
	Number    uint64   // from 1, which has its founder as the only witness
	Witnesses []string // sorted, 1 to MaxWitnesses
	Members   int      // how many members there were when it was proposed, witnesses among them: what shares are divided by

	// Successor is the origin whose panels replace those of Origin, which end with this one: it gives nobody a quorum. Zero for
	// a panel that others follow.
	Successor wire.Origin
}

// First returns the panel that a member founds: itself alone.
func First(origin wire.Origin, members int) Panel {
	return Panel{Origin: origin, Number: 1, Witnesses: []string{origin.Name}, Members: max(1, members)}
}

func (p Panel) ID() wire.PanelID { return wire.PanelID{Origin: p.Origin, Number: p.Number} }

func (p Panel) Exists() bool { return p.Number != 0 }

// Ends reports whether no panel follows.
func (p Panel) Ends() bool { return p.Successor != wire.Origin{} }

// Has reports whether a member is one of the witnesses.
func (p Panel) Has(name string) bool {
	_, has := slices.BinarySearch(p.Witnesses, name)
	return has
}

// Equal reports whether two panels are the same in everything.
func (p Panel) Equal(o Panel) bool {
	return p.Origin == o.Origin && p.Number == o.Number && p.Members == o.Members && p.Successor == o.Successor &&
		slices.Equal(p.Witnesses, o.Witnesses)
}

// Check returns an error that wraps ErrInvalid when no member can have made the panel.
func (p Panel) Check() error {
	switch {
	case p.Number == 0:
		return fmt.Errorf("%w: number is 0; it must be at least 1", ErrInvalid)
	case len(p.Witnesses) == 0 || len(p.Witnesses) > MaxWitnesses:
		return fmt.Errorf("%w: witnesses are %d; they must be 1 to %d", ErrInvalid, len(p.Witnesses), MaxWitnesses)
	case p.Members < len(p.Witnesses) || p.Members > MaxMembers:
		return fmt.Errorf("%w: members are %d; they must be %d, the number of witnesses, to %d", ErrInvalid, p.Members, len(p.Witnesses), MaxMembers)
	case p.Successor == p.Origin:
		return fmt.Errorf("%w: successor is its own origin; it must be another", ErrInvalid)
	}
	for i, name := range p.Witnesses {
		if err := checkName("witness", name); err != nil {
			return err
		}
		if i > 0 && p.Witnesses[i-1] >= name {
			return fmt.Errorf("%w: witness %.64q comes after %.64q; witnesses must be sorted, each once", ErrInvalid, name, p.Witnesses[i-1])
		}
	}
	if p.Ends() {
		if err := checkName("successor", p.Successor.Name); err != nil {
			return err
		}
	}
	return checkName("origin", p.Origin.Name)
}

func checkName(field, name string) error {
	if name == "" || len(name) > MaxName {
		return fmt.Errorf("%w: name of %s is %d bytes long; it must be 1 to %d", ErrInvalid, field, len(name), MaxName)
	}
	return nil
}

// Stays reports whether of two clusters that meet a's stays and b's ends [OriginsInOrder]. Exactly one of the two does. A later
// era stays; of one era the established one, which has agreed on something, stays before one that is still a founder alone;
// then the older, then the lower name. No chain of ends comes back to where it began: each end of a founder alone leads to
// another one or to an established origin, an end of that only to an established one, and within a kind the order is fixed
// with the founding. An origin that ended with its second panel has agreed on nothing else, and was a founder alone.
func Stays(a, b Panel) bool {
	established := func(p Panel) int {
		if p.established() {
			return 1
		}
		return 0
	}
	return cmp.Or(
		-cmp.Compare(a.Origin.Era, b.Origin.Era),
		-cmp.Compare(established(a), established(b)),
		cmp.Compare(a.Origin.Founded, b.Origin.Founded),
		strings.Compare(a.Origin.Name, b.Origin.Name),
	) < 0
}

// established reports whether an origin has agreed on something: its founder is not alone any more, or has not been to its end.
func (p Panel) established() bool { return p.Number > 1 && !(p.Ends() && p.Number == 2) }

// change is by what a panel differs from the one before. At most one of its parts is set.
type change struct {
	added, removed string
	members        bool // only the number of members differs
	ends           bool
}

// next returns by what n differs from p, which n must follow [OneWitnessAtATime].
func (p Panel) next(n Panel) (change, error) {
	if err := n.Check(); err != nil {
		return change{}, err
	}
	switch {
	case p.Ends():
		return change{}, fmt.Errorf("%w: nothing follows number %d, with which its origin ends", ErrInvalid, p.Number)
	case n.Origin != p.Origin || n.Number-1 != p.Number:
		return change{}, fmt.Errorf("%w: number %d does not follow %d of this origin", ErrInvalid, n.Number, p.Number)
	}
	var c change
	differences := 0
	for _, name := range n.Witnesses {
		if !p.Has(name) {
			c.added = name
			differences++
		}
	}
	for _, name := range p.Witnesses {
		if !n.Has(name) {
			c.removed = name
			differences++
		}
	}
	c.ends = n.Ends()
	c.members = differences == 0 && !c.ends
	switch {
	case differences > 1 || differences == 1 && c.ends:
		return change{}, fmt.Errorf("%w: number %d differs from the one before in %d witnesses; at most one is allowed, and none in the last panel", ErrInvalid, n.Number, differences)
	case !c.members && n.Members != max(p.Members, len(n.Witnesses)):
		return change{}, fmt.Errorf("%w: members are %d; with a change of witnesses they must stay %d", ErrInvalid, n.Members, max(p.Members, len(n.Witnesses)))
	case c.members && n.Members == p.Members:
		return change{}, fmt.Errorf("%w: number %d changes nothing", ErrInvalid, n.Number)
	}
	return c, nil
}

// follow returns the panel after p with these witnesses.
func (p Panel) follow(witnesses []string) Panel {
	return Panel{Origin: p.Origin, Number: p.Number + 1, Witnesses: witnesses, Members: max(p.Members, len(witnesses))}
}

// With returns the panel after p that has one more witness, which p must not have.
func (p Panel) With(name string) Panel {
	i, _ := slices.BinarySearch(p.Witnesses, name)
	return p.follow(slices.Insert(slices.Clone(p.Witnesses), i, name))
}

// Without returns the panel after p that lacks one of its witnesses. The last one cannot be taken out: the panel is not valid.
func (p Panel) Without(name string) Panel {
	witnesses := make([]string, 0, len(p.Witnesses))
	for _, w := range p.Witnesses {
		if w != name {
			witnesses = append(witnesses, w)
		}
	}
	return p.follow(witnesses)
}

// Counting returns the panel after p that counts so many members.
func (p Panel) Counting(members int) Panel {
	n := p.follow(p.Witnesses)
	n.Members = min(MaxMembers, max(members, len(p.Witnesses)))
	return n
}

// EndingFor returns the last panel of p's origin, whose members go on with those of another one.
func (p Panel) EndingFor(successor wire.Origin) Panel {
	n := p.follow(p.Witnesses)
	n.Successor = successor
	return n
}
