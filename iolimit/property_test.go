package iolimit_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"pgregory.net/rapid"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/iolimit"
)

// Whatever the limit, the sizes and the interruptions are: the bytes that arrive are those that were sent, in order, no
// sooner than the limit allows, and all that was taken has either passed or is back.
func TestBytesArriveUnchanged(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		x := &transfer{
			limit: peerlimit.PerSecond(rapid.Float64Range(100, 1e6).Draw(r, "rate")).
				WithBurst(rapid.Float64Range(1, 1e5).Draw(r, "burst")),
			takeOnly: rapid.Bool().Draw(r, "takeOnly"),
			maxTake:  rapid.IntRange(0, 5000).Draw(r, "maxTake"),
			writes:   rapid.Bool().Draw(r, "writes"),
			sent:     content(rapid.IntRange(0, 5_000).Draw(r, "bytes")),
			write:    rapid.IntRange(1, 12_000).Draw(r, "write"),
			read:     rapid.IntRange(1, 12_000).Draw(r, "read"),
			deadline: time.Duration(rapid.IntRange(0, 3000).Draw(r, "deadline, ms")) * ms,
			pause:    time.Duration(rapid.IntRange(0, 50).Draw(r, "pause, ms")) * ms,
		}
		var found problems
		synctest.Test(t, func(*testing.T) { x.run(&found) })
		found.fail(r)
	})
}

// problems are what is wrong in a bubble. A bubble that fails by itself would end the search for a smaller example.
type problems struct {
	mu   sync.Mutex // guards list
	list []string
}

func (p *problems) Errorf(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.list = append(p.list, fmt.Sprintf(format, args...))
}

func (p *problems) FailNow() { panic(p.list) } // of a test that is itself wrong

func (p *problems) fail(r *rapid.T) {
	if len(p.list) > 0 {
		r.Fatalf("%s", p.list[0])
	}
}

// transfer is how bytes are sent and received, over a connection of which one end is limited.
type transfer struct {
	limit           peerlimit.Limit
	takeOnly        bool
	maxTake         int
	writes          bool // what is limited; otherwise it reads
	sent            []byte
	write, read     int // bytes at once
	deadline, pause time.Duration
}

func (x *transfer) run(t *problems) {
	bucket := newTally(t, x.limit)
	b := iolimit.Bandwidth{Taker: bucket, Key: "k", MaxTake: x.maxTake}
	if x.takeOnly {
		b.Taker = takeOnly{bucket}
	}
	here, there := net.Pipe()
	judged := newJudge(t, x.limit)
	var conn *iolimit.Conn
	var err error
	var got []byte
	if x.writes {
		conn, err = iolimit.NewConn(here, iolimit.Bandwidth{}, b)
		assert.NoError(t, err)
		go x.send(conn)
		got = x.receive(there, judged)
	} else {
		conn, err = iolimit.NewConn(here, b, iolimit.Bandwidth{})
		assert.NoError(t, err)
		go x.send(there)
		got = x.receive(conn, judged)
	}
	assert.NoError(t, conn.Close())
	there.Close()
	sameBytes(t, x.sent, got)
	if !x.takeOnly {
		owed := time.Duration(float64(len(x.sent)) / x.limit.Tokens * float64(time.Second))
		assert.LessOrEqual(t, bucket.Peek().ResetAfter, owed+1, "no more is taken than has passed")
		if x.deadline == 0 {
			assert.InDelta(t, len(x.sent), bucket.net(), 1e-6)
		}
	}
}

// send writes everything, however often its deadline comes, and closes.
func (x *transfer) send(to net.Conn) {
	defer to.Close()
	for rest := x.sent; len(rest) > 0; {
		x.setDeadline(to.SetWriteDeadline)
		n, err := to.Write(rest[:min(x.write, len(rest))])
		rest = rest[n:]
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		time.Sleep(x.pause)
	}
}

// receive reads to the end, however often its deadline comes.
func (x *transfer) receive(from net.Conn, judged *judge) []byte {
	var got bytes.Buffer
	p := make([]byte, x.read)
	for {
		x.setDeadline(from.SetReadDeadline)
		n, err := from.Read(p)
		judged.pass(n)
		got.Write(p[:n])
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return got.Bytes()
		}
	}
}

// setDeadline sets the next deadline. A pipe of which the far end is closed refuses, but our end has taken it.
func (x *transfer) setDeadline(set func(time.Time) error) {
	if x.deadline > 0 {
		_ = set(time.Now().Add(x.deadline))
	}
}

// Readers and writers in a row, as a proxy has them.
func TestReaderIntoWriter(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		limit := peerlimit.PerSecond(rapid.Float64Range(1000, 1e7).Draw(r, "rate"))
		sent := content(rapid.IntRange(0, 100_000).Draw(r, "bytes"))
		buffer := make([]byte, rapid.IntRange(1, 70_000).Draw(r, "buffer"))
		var found problems
		synctest.Test(t, func(bubble *testing.T) {
			t := &found
			in, out := newTally(bubble, limit), newTally(bubble, limit)
			var got bytes.Buffer
			source := mustNewReader(bubble, bytes.NewReader(sent), iolimit.Bandwidth{Taker: in, Key: "k"})
			sink := mustNewWriter(bubble, &got, iolimit.Bandwidth{Taker: out, Key: "k"})
			n, err := io.CopyBuffer(sink, source, buffer)
			assert.NoError(t, err)
			assert.EqualValues(t, len(sent), n)
			assert.NoError(t, source.Close())
			assert.NoError(t, sink.Close())
			sameBytes(t, sent, got.Bytes())
			assert.InDelta(t, len(sent), in.net(), 1e-6)
			assert.InDelta(t, len(sent), out.net(), 1e-6)
		})
		found.fail(r)
	})
}
