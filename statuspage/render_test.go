package statuspage

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTwoDigits(t *testing.T) {
	for n, want := range map[float64]string{
		0: "0", -1: "0", 0.0123: "0.012", 0.5: "0.50", 1: "1.0", 9.96: "10.0", 10: "10", 99.6: "100", 152.04: "150", 123456: "120000",
	} {
		require.Equal(t, want, twoDigits(n))
	}
}
