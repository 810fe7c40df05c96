package oracle

import "math"

// A sum adds up without losing the small to the large (Neumaier's compensated
// summation), so that a million costs of 0.1 do not use up the tolerance.
type sum struct{ total, lost float64 }

func (s *sum) add(x float64) {
	total := s.total + x
	if math.Abs(s.total) >= math.Abs(x) {
		s.lost += s.total - total + x
	} else {
		s.lost += x - total + s.total
	}
	s.total = total
}

func (s *sum) value() float64 { return s.total + s.lost }
