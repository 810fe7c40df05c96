package linklog_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit/internal/linklog"
)

// lines is a log that can be read while it is written.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// take returns what was logged since it was last called, without times.
func (l *lines) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := strings.TrimSpace(l.b.String())
	l.b.Reset()
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

// inBubble runs a test with a Log that runs.
func inBubble(t *testing.T, level slog.Level, test func(l *linklog.Log, logged *lines)) {
	synctest.Test(t, func(t *testing.T) {
		logged := new(lines)
		l := linklog.New(slog.New(slog.NewTextHandler(logged, &slog.HandlerOptions{Level: level, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}})))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); l.Run(ctx) }()
		test(l, logged)
		cancel()
		<-done
	})
}

const (
	up    = `level=INFO msg="connected to member" member=b`
	down  = `level=WARN msg="cannot reach member, check its process, the takes port, Secret and versions" member=b`
	flaps = `level=WARN msg="link to member goes up and down, check the network and that member's processor" member=b`
)

// Where links are calm, each change is a line at once.
func TestCalmLinksAreLoggedAtOnce(t *testing.T) {
	inBubble(t, slog.LevelInfo, func(l *linklog.Log, logged *lines) {
		for range 10 {
			l.Change("b", linklog.Up, "")
			require.Equal(t, []string{up}, logged.take())
			time.Sleep(12 * time.Second)
			l.Change("b", linklog.Down, "gone")
			require.Equal(t, []string{down + " detail=gone"}, logged.take())
			time.Sleep(12 * time.Second)
		}
		require.Empty(t, logged.take())
	})
}

// A member that comes and goes once within seconds has a line for each, and one that comes back again soon has its line when it has stayed.
func TestASecondChangeSoonAfterWaitsUntilItLasts(t *testing.T) {
	inBubble(t, slog.LevelInfo, func(l *linklog.Log, logged *lines) {
		l.Change("b", linklog.Up, "")
		time.Sleep(2 * time.Second)
		l.Change("b", linklog.Down, "gone")
		require.Equal(t, []string{up, down + " detail=gone"}, logged.take())
		time.Sleep(2 * time.Second)
		l.Change("b", linklog.Up, "")
		require.Empty(t, logged.take())
		l.Change("c", linklog.Down, "")
		require.Len(t, logged.take(), 1, "another member is another matter")
		time.Sleep(12 * time.Second)
		require.Equal(t, []string{up + " suppressed=1"}, logged.take())
	})
}

// Whatever a link does and whenever it ends, there are few lines, all changes are counted, and the last line is what the link is.
func TestTheLogEndsWithTheStateOfALinkThatFlaps(t *testing.T) {
	for seed := range uint64(200) {
		inBubble(t, slog.LevelInfo, func(l *linklog.Log, logged *lines) {
			random := rand.New(rand.NewPCG(seed, 0))
			state, detail, changes := linklog.Down, "", 0
			began := time.Now()
			for length := time.Duration(random.Int64N(int64(5 * time.Minute))); time.Since(began) < length; changes++ {
				if state++; state > linklog.Down || random.IntN(2) == 0 && state == linklog.Silent {
					state = linklog.Up
				}
				if detail = ""; state != linklog.Up {
					detail = fmt.Sprint("change ", changes)
				}
				l.Change("b", state, detail)
				time.Sleep(time.Duration(random.Int64N(int64(200 * time.Millisecond))))
			}
			if state == linklog.Silent { // one that stays silent is closed
				state, detail = linklog.Down, "silent"
				l.Change("b", state, detail)
			}
			lasted := time.Since(began)
			time.Sleep(12 * time.Second)
			all := logged.take()
			if len(all) == 0 {
				assert.Less(t, changes, 2)
				return
			}
			assert.LessOrEqual(t, len(all), 3+int((lasted+11*time.Second)/time.Minute), "one of each kind, one a minute until it is steady, and one then")
			last := all[len(all)-1]
			if state == linklog.Up {
				assert.True(t, strings.HasPrefix(last, up), "seed %d: %s", seed, strings.Join(all, "\n"))
			} else {
				assert.True(t, strings.HasPrefix(last, down), "seed %d: %s", seed, strings.Join(all, "\n"))
				assert.Contains(t, last, detail)
			}
		})
	}
}

// A link that is silent for moments is nothing that an operator sees, until it has been so for a minute.
func TestSilentMoments(t *testing.T) {
	inBubble(t, slog.LevelInfo, func(l *linklog.Log, logged *lines) {
		l.Change("b", linklog.Up, "")
		time.Sleep(time.Minute)
		logged.take()
		flap := func(times int) {
			for range times {
				l.Change("b", linklog.Silent, "no answer")
				time.Sleep(5 * time.Millisecond)
				l.Change("b", linklog.Up, "")
				time.Sleep(5 * time.Millisecond)
			}
		}
		flap(1000)
		time.Sleep(time.Minute)
		require.Empty(t, logged.take())
		flap(7000)
		all := logged.take()
		require.Len(t, all, 1)
		require.True(t, strings.HasPrefix(all[0], flaps), all[0])
		time.Sleep(12 * time.Second)
		all = logged.take()
		require.Len(t, all, 1)
		require.True(t, strings.HasPrefix(all[0], up), all[0])
	})
}

// At debug level every change is a line of its own.
func TestDebugHasAll(t *testing.T) {
	inBubble(t, slog.LevelDebug, func(l *linklog.Log, logged *lines) {
		for range 100 {
			l.Change("b", linklog.Up, "")
			l.Change("b", linklog.Silent, "no answer")
			l.Change("b", linklog.Up, "")
			l.Change("b", linklog.Down, "gone")
		}
		all := strings.Join(logged.take(), "\n")
		require.Equal(t, 100, strings.Count(all, `level=DEBUG msg="member does not answer for the moment" member=b detail="no answer"`))
		require.Equal(t, 100, strings.Count(all, `level=DEBUG msg="member answers again" member=b`))
		require.Equal(t, 100, strings.Count(all, "cannot reach member"))
		require.Equal(t, 100, strings.Count(all, "connected to member"))
		require.Equal(t, 2, strings.Count(all, "level=INFO")+strings.Count(all, "level=WARN"))
	})
}

// Of many more links than are followed, each is logged, and what is known of the others stays.
func TestManyLinks(t *testing.T) {
	inBubble(t, slog.LevelInfo, func(l *linklog.Log, logged *lines) {
		for i := range 4_000 {
			l.Change("b", linklog.Silent, "")
			l.Change(fmt.Sprint("gone-", i), linklog.Down, "")
			l.Change(fmt.Sprint("silent-", i), linklog.Silent, "")
			time.Sleep(time.Microsecond)
			l.Change("b", linklog.Up, "")
		}
		all := logged.take()
		require.Len(t, all, 4_000, "one for each that has gone, and none for the one that answers")
		require.LessOrEqual(t, l.Followed(), 1024)
		time.Sleep(time.Minute)
		require.Empty(t, logged.take())
		require.Zero(t, l.Followed())
	})
}

// A logger that does not return keeps nobody but who writes waiting, and what was left out is said when it goes on.
func TestASlowLogger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate, logged := make(chan struct{}), new(lines)
		l := linklog.New(slog.New(slog.NewTextHandler(writerFunc(func(p []byte) (int, error) {
			<-gate
			return logged.Write(p)
		}), nil)))
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { l.Run(ctx) })
		running.Go(func() { l.Change("a", linklog.Up, "") })
		synctest.Wait()
		for i := range 5000 {
			l.Change(fmt.Sprint("gone-", i%1000), linklog.Up, "")
			l.Change(fmt.Sprint("gone-", i%1000), linklog.Down, "")
		}
		require.LessOrEqual(t, l.Queued(), 1024)
		close(gate)
		time.Sleep(15 * time.Second)
		all := strings.Join(logged.take(), "\n")
		for i := range 1000 {
			about := fmt.Sprintf("member=gone-%d ", i)
			require.Contains(t, all+" ", "cannot reach member, check its process, the takes port, Secret and versions\" "+about)
		}
		cancel()
		running.Wait()
	})
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
