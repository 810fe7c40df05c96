package iolimit_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/iolimit"
)

// Neither what a limiter can do nor how the bytes come may let more through than the limit, or much less.
func TestTotalsAreExact(t *testing.T) {
	limit := peerlimit.PerSecond(100_000).WithBurst(50_000)
	const total = 1_000_000
	const ideal = 9500 * ms // (total - burst) / rate
	for _, seam := range []string{"limiter", "take only"} {
		for _, size := range []int{700, 32 << 10, total} {
			for _, side := range []string{"writer", "reader"} {
				t.Run(seam+" "+side, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						bucket := newTally(t, limit)
						var taker iolimit.Taker = bucket
						if seam == "take only" {
							taker = takeOnly{bucket}
						}
						judged := newJudge(t, limit)
						b := iolimit.Bandwidth{Taker: taker, Key: "k"}
						var moved int64
						var err error
						if side == "writer" {
							w := mustNewWriter(t, judged, b)
							moved, err = io.CopyBuffer(w, io.LimitReader(rand1{}, total), make([]byte, size))
							require.NoError(t, w.Close())
						} else {
							r := mustNewReader(t, io.LimitReader(rand1{}, total), b)
							moved, err = io.CopyBuffer(onlyWriter{judged}, onlyReader{r}, make([]byte, size))
							require.NoError(t, r.Close())
						}
						require.NoError(t, err)
						assert.EqualValues(t, total, moved)
						took := time.Since(judged.began)
						assert.GreaterOrEqual(t, took, ideal, "%d at once", size)
						assert.LessOrEqual(t, took, ideal+10*ms, "%d at once: what is taken ahead lasts no longer", size)
						assert.InDelta(t, total, bucket.net(), 1e-6, "nothing is lost at Close")
					})
				})
			}
		}
	}
}

// rand1 is a source without end.
type rand1 struct{}

func (rand1) Read(p []byte) (int, error) { return len(p), nil }

type onlyWriter struct{ io.Writer }

type onlyReader struct{ io.Reader }

// Many that share a bucket share it equally, whether they write much at once or little, and all of it is used.
func TestManyShareFairly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limit := peerlimit.PerSecond(1e6).WithBurst(1e5)
		bucket := newTally(t, limit)
		judged := newJudge(t, limit)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		const writers = 10
		var got [writers]int
		var all sync.WaitGroup
		for i := range writers {
			w, err := iolimit.NewWriter(ctx, judged, iolimit.Bandwidth{Taker: bucket, Key: "k"})
			require.NoError(t, err)
			p := make([]byte, 500)
			if i%2 == 0 {
				p = make([]byte, 1<<20)
			}
			all.Go(func() {
				defer w.Close()
				for {
					n, err := w.Write(p)
					got[i] += n
					if err != nil {
						assert.ErrorIs(t, err, context.DeadlineExceeded)
						return
					}
				}
			})
		}
		all.Wait()
		total := 0
		for _, n := range got {
			total += n
		}
		assert.Greater(t, float64(total), 0.99*20e6)
		for i, n := range got {
			assert.InEpsilon(t, 20e6/writers, float64(n), 0.1, "writer %d of %v", i, got)
		}
		assert.Equal(t, total, judged.total())
	})
}

func TestFastTransfersTakeRarely(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limit := peerlimit.PerSecond(1e9).WithBurst(64 << 20)
		bucket := newTally(t, limit)
		judged := newJudge(t, limit)
		w := mustNewWriter(t, judged, iolimit.Bandwidth{Taker: bucket, Key: "k"})
		packet := make([]byte, 1400)
		for range 1 << 30 / len(packet) {
			_, err := w.Write(packet)
			require.NoError(t, err)
		}
		require.NoError(t, w.Close())
		_, asked := bucket.requests()
		assert.Less(t, asked, 1100, "for 767,000 packets")
		assert.EqualValues(t, judged.total(), bucket.net())
	})
}

func TestSlowTransfersTakeWhatTheyUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket := newTally(t, peerlimit.PerHour(100_000))
		w := mustNewWriter(t, io.Discard, iolimit.Bandwidth{Taker: bucket, Key: "k"})
		for i := range 50 {
			_, err := w.Write(make([]byte, 100))
			require.NoError(t, err)
			assert.EqualValues(t, 100*(i+1), bucket.net(), "just the bytes at hand")
			time.Sleep(100 * ms)
		}
		takes, _ := bucket.requests()
		assert.Equal(t, 50, takes)
	})
}

// A burst of small writes takes ahead; what is left of that goes back when it rests, or at Close.
func TestWhatIsLeftGoesBack(t *testing.T) {
	for _, closes := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			bucket := newTally(t, peerlimit.PerSecond(1e6))
			w := mustNewWriter(t, io.Discard, iolimit.Bandwidth{Taker: bucket, Key: "k"})
			for range 4 { // takes 100, 200 and 400
				_, err := w.Write(make([]byte, 100))
				require.NoError(t, err)
			}
			assert.EqualValues(t, 700, bucket.net())
			if closes {
				require.NoError(t, w.Close())
				require.NoError(t, w.Close(), "again")
				assert.EqualValues(t, 400, bucket.net())
				_, err := w.Write([]byte("x"))
				assert.ErrorIs(t, err, iolimit.ErrClosed)
				return
			}
			time.Sleep(20*ms - 1)
			synctest.Wait()
			assert.EqualValues(t, 700, bucket.net())
			time.Sleep(time.Nanosecond)
			synctest.Wait()
			assert.EqualValues(t, 400, bucket.net())
		})
	}
}

// Credit that is used a little now and then is given back too.
func TestCreditEndsAfterTheTake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket := newTally(t, peerlimit.PerSecond(10e6).WithBurst(10e6))
		w := mustNewWriter(t, io.Discard, iolimit.Bandwidth{Taker: bucket, Key: "k"})
		_, err := w.Write(make([]byte, 1<<20))
		require.NoError(t, err)
		written := 1 << 20
		for range 70 { // three times it takes ahead: as in the long write, as on the average since then, and for single bytes
			_, err := w.Write(make([]byte, 1))
			require.NoError(t, err)
			written++
			time.Sleep(ms)
		}
		synctest.Wait()
		assert.LessOrEqual(t, bucket.net(), float64(written+10), "no more than it uses in 10 ms")
	})
}

func TestMoreThanTheBurst(t *testing.T) {
	for _, burst := range []float64{1, 3, 1000} {
		synctest.Test(t, func(t *testing.T) {
			limit := peerlimit.PerSecond(1000).WithBurst(burst)
			bucket := newTally(t, limit)
			judged := newJudge(t, limit)
			w := mustNewWriter(t, judged, iolimit.Bandwidth{Taker: bucket, Key: "k"})
			_, err := w.Write(make([]byte, 10_000))
			require.NoError(t, err)
			r := mustNewReader(t, iotest.DataErrReader(bytes.NewReader(content(10_000))), iolimit.Bandwidth{Taker: bucket, Key: "k"})
			var got bytes.Buffer
			for { // by hand, to judge what each read hands out
				p := make([]byte, 5000)
				n, err := r.Read(p)
				judged.pass(n)
				got.Write(p[:n])
				if err == io.EOF {
					break
				}
				require.NoError(t, err)
			}
			sameBytes(t, content(10_000), got.Bytes())
			assert.EqualValues(t, 20_000, judged.total())
		})
	}
}

func TestBurstBelowAByteIsAnError(t *testing.T) {
	bucket := newTally(t, peerlimit.PerSecond(10).WithBurst(0.5).WithMinCost(0.1))
	w := mustNewWriter(t, io.Discard, iolimit.Bandwidth{Taker: bucket, Key: "k"})
	_, err := w.Write([]byte("x"))
	assert.ErrorIs(t, err, peerlimit.ErrExceedsBurst)
}

func TestLeakyBucketsPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limit := peerlimit.PerSecond(1000).WithBurst(500).Leaky()
		bucket := newTally(t, limit)
		judged := newJudge(t, limit)
		w := mustNewWriter(t, judged, iolimit.Bandwidth{Taker: bucket, Key: "k"})
		_, err := w.Write(make([]byte, 5000))
		require.NoError(t, err)
		assert.InDelta(t, 5.0, time.Since(judged.began).Seconds(), 0.6)
		require.NoError(t, w.Close())
		assert.InDelta(t, 5000, bucket.net(), 1e-6)
	})
}

// What a leaky bucket lets in leaves it one after the other. A call that does not wait for that gives it back.
func TestLeakyBucketsDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket := newTally(t, peerlimit.PerSecond(1000).WithBurst(500).Leaky())
		ctx, cancel := context.WithCancel(t.Context())
		w, err := iolimit.NewWriter(ctx, io.Discard, iolimit.Bandwidth{Taker: bucket, Key: "k"})
		require.NoError(t, err)
		began := time.Now()
		for i := range 3 {
			_, err := w.Write(make([]byte, 100))
			require.NoError(t, err)
			assert.Equal(t, time.Duration(i)*100*ms, time.Since(began))
		}
		time.AfterFunc(50*ms, cancel)
		_, err = w.Write(make([]byte, 100))
		assert.ErrorIs(t, err, context.Canceled)
		assert.EqualValues(t, 300, bucket.net())
	})
}

// What a source says along with bytes that have to wait is told after the last of them, once.
func TestErrorsOfTheSourceAreNotLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket := newTally(t, peerlimit.PerSecond(100))
		said := false
		r := mustNewReader(t, sourceFunc(func(p []byte) (int, error) {
			if said {
				return 0, io.EOF
			}
			said = true
			return 250, errNoRoom
		}), iolimit.Bandwidth{Taker: bucket, Key: "k"})
		total := 0
		p := make([]byte, 250)
		for {
			n, err := r.Read(p)
			total += n
			if err != nil {
				assert.ErrorIs(t, err, errNoRoom)
				break
			}
		}
		assert.Equal(t, 250, total)
		_, err := r.Read(p)
		assert.Equal(t, io.EOF, err)
	})
}

func TestContextEndsWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket := newTally(t, peerlimit.PerSecond(100))
		bucket.AllowN(100)
		ctx, cancel := context.WithCancel(t.Context())
		b := iolimit.Bandwidth{Taker: bucket, Key: "k"}
		source := bytes.NewReader(content(50))
		r, err := iolimit.NewReader(ctx, source, b)
		require.NoError(t, err)
		time.AfterFunc(100*ms, cancel)
		began := time.Now()
		n, err := r.Read(make([]byte, 50))
		assert.Zero(t, n)
		assert.ErrorIs(t, err, context.Canceled)
		assert.Equal(t, 100*ms, time.Since(began))
		assert.Zero(t, source.Len(), "it was read, and waits")
		assert.InDelta(t, 10, bucket.Peek().Remaining, 1e-6, "the turn was given up")

		w, err := iolimit.NewWriter(ctx, io.Discard, b)
		require.NoError(t, err)
		_, err = w.Write([]byte("x"))
		assert.ErrorIs(t, err, context.Canceled)
	})
}

func TestCloseEndsWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket := newTally(t, peerlimit.PerSecond(100))
		w := mustNewWriter(t, io.Discard, iolimit.Bandwidth{Taker: bucket, Key: "k"})
		time.AfterFunc(time.Second, func() { w.Close() })
		n, err := w.Write(make([]byte, 1000))
		assert.ErrorIs(t, err, iolimit.ErrClosed)
		assert.NotErrorIs(t, err, context.Canceled)
		assert.LessOrEqual(t, n, 200)
		assert.InDelta(t, 200-n, bucket.Peek().Remaining, 1e-6, "nothing is lost at Close")
	})
}

// A request that is under way when everything ends is waited for; what it has taken is given back, and nothing is written.
func TestCloseDuringARequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket, release := newTally(t, peerlimit.PerHour(1000)), make(chan struct{})
		slow := &slowTakes{bucket, release}
		judged := newJudge(t, peerlimit.PerHour(1000).WithBurst(1000))
		w := mustNewWriter(t, judged, iolimit.Bandwidth{Taker: slow, Key: "k"})
		failed := make(chan error)
		go func() {
			_, err := w.Write(make([]byte, 100))
			failed <- err
		}()
		synctest.Wait()
		require.NoError(t, w.Close())
		close(release)
		assert.ErrorIs(t, <-failed, iolimit.ErrClosed)
		assert.Zero(t, judged.total())
		assert.Zero(t, bucket.net())
	})
}

// slowTakes is a Taker whose takes wait for the test, whatever their context says.
type slowTakes struct {
	*tally
	release chan struct{}
}

func (s *slowTakes) Take(ctx context.Context, key string, cost float64) (peerlimit.Decision, error) {
	<-s.release
	return s.tally.Take(ctx, key, cost)
}

// errNoRoom is what a broken sink says.
var errNoRoom = errors.New("no room")

// Bytes that a sink did not take are not paid for.
func TestFailedWritesAreGivenBack(t *testing.T) {
	bucket := newTally(t, peerlimit.PerHour(10_000))
	w := mustNewWriter(t, sinkFunc(func(p []byte) (int, error) { return 7, errNoRoom }), iolimit.Bandwidth{Taker: bucket, Key: "k"})
	n, err := w.Write(make([]byte, 100))
	assert.Equal(t, 7, n)
	assert.ErrorIs(t, err, errNoRoom)
	require.NoError(t, w.Close())
	assert.EqualValues(t, 7, bucket.net())

	for wrong, want := range map[int]string{-1: "wrote -1 of 100", 101: "wrote 101 of 100"} {
		w := mustNewWriter(t, sinkFunc(func(p []byte) (int, error) { return wrong, nil }), iolimit.Bandwidth{Taker: bucket, Key: "k"})
		_, err := w.Write(make([]byte, 100))
		assert.ErrorContains(t, err, want)
		r := mustNewReader(t, sourceFunc(func(p []byte) (int, error) { return wrong, nil }), iolimit.Bandwidth{Taker: bucket, Key: "k"})
		_, err = r.Read(make([]byte, 100))
		assert.ErrorContains(t, err, "the source says")
	}
	w = mustNewWriter(t, sinkFunc(func(p []byte) (int, error) { return len(p) / 2, nil }), iolimit.Bandwidth{Taker: bucket, Key: "k"})
	n, err = w.Write(make([]byte, 100))
	assert.Equal(t, 50, n)
	assert.ErrorIs(t, err, io.ErrShortWrite)
}

type sinkFunc func([]byte) (int, error)

func (f sinkFunc) Write(p []byte) (int, error) { return f(p) }

type sourceFunc func([]byte) (int, error)

func (f sourceFunc) Read(p []byte) (int, error) { return f(p) }

// A limiter that was closed, or a key that is too long, is the caller's to know.
func TestErrorsOfTheTakerAreTold(t *testing.T) {
	node, err := peerlimit.Start(peerlimit.Config{})
	require.NoError(t, err)
	limiter, err := node.Limiter("io", peerlimit.PerSecond(1000))
	require.NoError(t, err)
	b := iolimit.Bandwidth{Taker: limiter, Key: string(make([]byte, peerlimit.MaxKeyLen+1))}
	_, err = mustNewWriter(t, io.Discard, b).Write([]byte("x"))
	assert.ErrorIs(t, err, peerlimit.ErrInvalidKey)

	r := mustNewReader(t, bytes.NewReader(content(10)), iolimit.Bandwidth{Taker: limiter, Key: "k"})
	require.NoError(t, node.Close())
	_, err = r.Read(make([]byte, 10))
	assert.ErrorIs(t, err, peerlimit.ErrClosed)
}

// scripted denies as it is told.
type scripted struct {
	*tally
	denials int
	limited bool // reservations are refused too
}

func (s *scripted) Take(ctx context.Context, key string, cost float64) (peerlimit.Decision, error) {
	if s.denials > 0 {
		s.denials--
		return peerlimit.Decision{}, nil // as fallback.Closed does: nobody knows when
	}
	return s.tally.Take(ctx, key, cost)
}

func (s *scripted) Reserve(ctx context.Context, key string, cost float64) (*peerlimit.Reservation, error) {
	if s.limited {
		return nil, peerlimit.Decision{RetryAfter: time.Hour}.Err()
	}
	return s.tally.Reserve(ctx, key, cost)
}

// A queue that is too long to stand in is tried again within a second, and a denial without a time not without pause.
func TestDenialsAreAskedAgainAtAPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{tally: newTally(t, peerlimit.PerSecond(1000)), denials: 5, limited: true}
		w := mustNewWriter(t, io.Discard, iolimit.Bandwidth{Taker: s, Key: "k"})
		began := time.Now()
		_, err := w.Write([]byte("x"))
		require.NoError(t, err)
		assert.Equal(t, 5*time.Second, time.Since(began))

		o := takeOnlyFunc((&scripted{tally: newTally(t, peerlimit.PerSecond(1000)), denials: 5}).Take)
		w = mustNewWriter(t, io.Discard, iolimit.Bandwidth{Taker: o, Key: "k"})
		began = time.Now()
		_, err = w.Write([]byte("x"))
		require.NoError(t, err)
		assert.Equal(t, 5*ms, time.Since(began))
	})
}

type takeOnlyFunc func(ctx context.Context, key string, cost float64) (peerlimit.Decision, error)

func (f takeOnlyFunc) Take(ctx context.Context, key string, cost float64) (peerlimit.Decision, error) {
	return f(ctx, key, cost)
}

func TestWhatIsInvalidIsNamed(t *testing.T) {
	ctx := t.Context()
	bucket := newTally(t, peerlimit.PerSecond(1))
	for want, b := range map[string]iolimit.Bandwidth{
		"Taker is nil":             {Key: "k"},
		"nil *peerlimit.Limiter":   {Taker: (*peerlimit.Limiter)(nil), Key: "k"},
		"nil iolimit_test.takeOnl": {Taker: takeOnlyFunc(nil), Key: "k"},
		"Key is empty":             {Taker: bucket},
		"MaxTake is -1":            {Taker: bucket, Key: "k", MaxTake: -1},
		"MaxTake is 1073741825; ":  {Taker: bucket, Key: "k", MaxTake: 1<<30 + 1},
		"Bandwidth: Taker is nil":  {},
		"invalid Bandwidth: Taker": {MaxTake: 5},
	} {
		_, err := iolimit.NewReader(ctx, bytes.NewReader(nil), b)
		assert.ErrorIs(t, err, iolimit.ErrInvalid)
		assert.ErrorContains(t, err, want)
		_, err = iolimit.NewWriter(ctx, io.Discard, b)
		assert.ErrorIs(t, err, iolimit.ErrInvalid)
		assert.ErrorContains(t, err, want)
	}
	good := iolimit.Bandwidth{Taker: bucket, Key: "k"}
	_, err := iolimit.NewReader(ctx, nil, good)
	assert.ErrorIs(t, err, iolimit.ErrInvalid)
	_, err = iolimit.NewWriter(ctx, nil, good)
	assert.ErrorIs(t, err, iolimit.ErrInvalid)
}

// Ways around the limit that io.Copy would prefer.
func TestNothingGoesAroundTheLimit(t *testing.T) {
	for _, v := range []any{new(iolimit.Reader), new(iolimit.Writer), new(iolimit.Conn)} {
		_, is := v.(io.ReaderFrom)
		assert.False(t, is, "%T is an io.ReaderFrom", v)
		_, is = v.(io.WriterTo)
		assert.False(t, is, "%T is an io.WriterTo", v)
	}
}

// slowRefunds is a Taker whose refunds wait for the test.
type slowRefunds struct {
	*tally
	release chan struct{}
}

func (s *slowRefunds) Refund(ctx context.Context, key string, cost float64) error {
	<-s.release
	return s.tally.Refund(ctx, key, cost)
}

// Everything has been given back when a Close returns, also when another one gives it back.
func TestEveryCloseWaitsForTheRefund(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slowRefunds{newTally(t, peerlimit.PerSecond(1e6)), make(chan struct{})}
		w := mustNewWriter(t, io.Discard, iolimit.Bandwidth{Taker: s, Key: "k"})
		for range 4 {
			_, err := w.Write(make([]byte, 100))
			require.NoError(t, err)
		}
		returned := make(chan float64, 2)
		for range 2 {
			go func() {
				w.Close()
				returned <- s.net()
			}()
		}
		synctest.Wait()
		assert.Empty(t, returned)
		close(s.release)
		assert.EqualValues(t, 400, <-returned)
		assert.EqualValues(t, 400, <-returned)
	})
}
