package model

import "fmt"

// scripted is the state a search starts from: the initial one, after the steps of the script. It panics when a step cannot
// be taken, or violates a property: scripts come from source text only.
func (m *machine) scripted() State {
	s := m.initial()
	if err := m.settle(&s); err != nil {
		panic(fmt.Sprintf("peerlimit/internal/model: the initial state: %v", err))
	}
	for i, text := range m.Script {
		next, found := s, false
		m.successors(&s, false, func(step Step, t *State, err error) {
			if step.String() == text && err == nil {
				next, found = *t, true
			}
		})
		if !found {
			panic(fmt.Sprintf("peerlimit/internal/model: no step %d %q in state\n%v", i+1, text, s))
		}
		s = next
	}
	return s
}
