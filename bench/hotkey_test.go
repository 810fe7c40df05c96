package bench

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/internal/oracle"
)

// What a node of another process is told by the environment.
const (
	seedVariable   = "PEERLIMIT_BENCH_SEED"
	leasesVariable = "PEERLIMIT_BENCH_LEASES"
)

func TestMain(m *testing.M) {
	if seed := os.Getenv(seedVariable); seed != "" {
		if err := serveNode(seed, os.Getenv(leasesVariable) == "off", os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// serveNode is a member in a process of its own. It says its name, and for each line it reads the processor time it has
// used so far, in microseconds. It ends when there is nothing more to read.
func serveNode(seed string, noLeases bool, in io.Reader, out io.Writer) error {
	node, err := peerlimit.Start(nodeConfig(noLeases, seed))
	if err != nil {
		return err
	}
	fmt.Fprintln(out, node.Self().Name)
	for lines := bufio.NewScanner(in); lines.Scan(); {
		fmt.Fprintln(out, processorTime().Microseconds())
	}
	return node.Close()
}

func nodeConfig(noLeases bool, join ...string) peerlimit.Config {
	return peerlimit.Config{Join: join, NoLeases: noLeases, Logger: slog.New(slog.DiscardHandler)}
}

// processorTime is what this process has used.
func processorTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// otherProcess is a member in another process.
type otherProcess struct {
	t    testing.TB
	name string
	in   io.WriteCloser
	out  *bufio.Scanner
}

func startProcess(t testing.TB, seed string, noLeases bool) *otherProcess {
	t.Helper()
	command := exec.Command(os.Args[0])
	command.Env = append(os.Environ(), seedVariable+"="+seed)
	if noLeases {
		command.Env = append(command.Env, leasesVariable+"=off")
	}
	command.Stderr = os.Stderr
	in, err := command.StdinPipe()
	require.NoError(t, err)
	out, err := command.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, command.Start())
	p := &otherProcess{t: t, in: in, out: bufio.NewScanner(out)}
	t.Cleanup(func() {
		_ = in.Close()
		assert.NoError(t, command.Wait())
	})
	p.name = p.line()
	return p
}

func (p *otherProcess) line() string {
	require.True(p.t, p.out.Scan(), "the other process has ended: %v", p.out.Err())
	return p.out.Text()
}

// used is the processor time that the process has used.
func (p *otherProcess) used() time.Duration {
	_, err := io.WriteString(p.in, "\n")
	require.NoError(p.t, err)
	micros, err := strconv.Atoi(strings.TrimSpace(p.line()))
	require.NoError(p.t, err)
	return time.Duration(micros) * time.Microsecond
}

// threeProcesses starts a node here and two in other processes, and returns a limiter of the node here, a key that is
// owned by another one, and that one.
func threeProcesses(t testing.TB, noLeases bool, limit peerlimit.Limit) (l *peerlimit.Limiter, key string, owner *otherProcess) {
	t.Helper()
	node, err := peerlimit.Start(nodeConfig(noLeases))
	require.NoError(t, err)
	t.Cleanup(func() { _ = node.Close() })
	others := []*otherProcess{startProcess(t, node.Self().Addr, noLeases), startProcess(t, node.Self().Addr, noLeases)}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	require.NoError(t, node.WaitReady(ctx, 3))
	l, err = node.Limiter("hot", limit)
	require.NoError(t, err)
	for i := 0; ; i++ {
		key = fmt.Sprintf("everyone-%d", i)
		for _, other := range others {
			if l.Owner(key).Name != other.name {
				continue
			}
			if d, err := l.Take(ctx, key, 1); err == nil && d.Origin == peerlimit.OriginRemote {
				return l, key, other
			}
		}
	}
}

// BenchmarkHotKey takes from one key, with a limit far above the load, from all processors of a node that does not hold
// it, in a cluster of three processes on loopback; beside a bare limiter of golang.org/x/time/rate in one process.
// owner-cpu-% is the processor time of the owner's process, in parts of that of this one.
func BenchmarkHotKey(b *testing.B) {
	b.Run("x-time-rate", func(b *testing.B) {
		l := rate.NewLimiter(1e12, 1e12)
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if !l.Allow() {
					b.Error("denied")
					return
				}
			}
		})
	})
	for _, leases := range []bool{true, false} {
		name := "leases"
		if !leases {
			name = "no-leases"
		}
		b.Run(name, func(b *testing.B) {
			l, key, owner := threeProcesses(b, !leases, peerlimit.PerSecond(1e12))
			ctx := context.Background()
			time.Sleep(2 * time.Second) // everything has its owner and its standby by then, and the owner works for takes alone
			here, there := processorTime(), owner.used()
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if d, err := l.Take(ctx, key, 1); err != nil || !d.Allowed {
						b.Errorf("%+v, %v", d, err)
						return
					}
				}
			})
			b.StopTimer()
			here, there = processorTime()-here, owner.used()-there
			b.ReportMetric(100*float64(there)/float64(here), "owner-cpu-%")
		})
	}
}

// A limit that is in the way is exact, with real processes and a real network.
func TestHotKeyIsExactAcrossProcesses(t *testing.T) {
	limit := peerlimit.PerSecond(50_000)
	l, key, _ := threeProcesses(t, false, limit)
	judge := oracle.New(oracle.Limit{Tokens: 50_000, Period: time.Second, Burst: 50_000})
	began := time.Now()
	const lasts = 2 * time.Second
	origins := make(map[peerlimit.Origin]int)
	var mu sync.Mutex
	var callers sync.WaitGroup
	for range 4 {
		callers.Go(func() {
			mine := make(map[peerlimit.Origin]int)
			for time.Since(began) < lasts {
				start := time.Since(began)
				d, err := l.Take(context.Background(), key, 1)
				if !assert.NoError(t, err) {
					return
				}
				if d.Allowed {
					judge.Admit(oracle.Take{Start: start, End: time.Since(began), Cost: 1})
					mine[d.Origin]++
				}
			}
			mu.Lock()
			defer mu.Unlock()
			for origin, n := range mine {
				origins[origin] += n
			}
		})
	}
	callers.Wait()
	report := judge.Report()
	t.Logf("%v; by %v", report, origins)
	assert.True(t, report.Within(0), "%v", report)
	assert.Positive(t, origins[peerlimit.OriginLease])
	assert.Zero(t, origins[peerlimit.OriginStandby]+origins[peerlimit.OriginFallback], "the owner was there all the time")
}
