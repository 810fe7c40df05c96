package seldom_test

import (
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/peerlimit/peerlimit/internal/seldom"
)

// Of what happens a thousand times a second there is a line in a minute, and none is lost from the count; at debug level
// all are there.
func TestWarningsAreSeldomAndCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logs strings.Builder
		l := seldom.New(slog.New(slog.NewTextHandler(&logs, &slog.HandlerOptions{Level: slog.LevelDebug})))
		for i := range 25_000 {
			l.Warn("refused", slog.Int("number", i))
			time.Sleep(6 * time.Millisecond)
		}
		var warnings []string
		lines := strings.Split(strings.TrimSpace(logs.String()), "\n")
		for _, line := range lines {
			if strings.Contains(line, "level=WARN") {
				warnings = append(warnings, line)
			}
		}
		assert.Len(t, lines, 25_000)
		if assert.Len(t, warnings, 3) {
			assert.Contains(t, warnings[0], "msg=refused number=0")
			assert.NotContains(t, warnings[0], "suppressed")
			assert.Contains(t, warnings[1], "number=10000 suppressed=9999")
			assert.Contains(t, warnings[2], "number=20000 suppressed=9999")
		}
	})
}
