package main

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit"
)

// fakeNode is the HTTP side of a node.
func fakeNode(t *testing.T, name string, handler http.HandlerFunc) *process {
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return &process{name: name, info: nodeReady{HTTP: server.URL}}
}

func respond(status int, a takeAnswer) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { answer(w, status, a) }
}

// disconnect ends the connection without an answer, as the kernel does for a process that is killed.
func disconnect(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

func newTestDriver(t *testing.T) *driver {
	c := new(clock)
	c.start()
	d := newDriver(c, newRecorder(peerlimit.PerSecond(10).WithBurst(10)), 10)
	t.Cleanup(func() {
		for _, target := range slices.Clone(d.targets) {
			d.drop(target.node)
		}
	})
	return d
}

func TestRequestsGoToAllNodesInTurn(t *testing.T) {
	d := newTestDriver(t)
	d.add(fakeNode(t, "node-1", respond(http.StatusOK, takeAnswer{true, "local"})))
	d.add(fakeNode(t, "node-2", respond(http.StatusOK, takeAnswer{true, "remote"})))
	d.add(fakeNode(t, "node-3", respond(http.StatusTooManyRequests, takeAnswer{false, "remote"})))
	for range 4 {
		for range 3 {
			d.request("alice")
			d.request("bob")
		}
	}
	got := d.recorder.sample()
	assert.Equal(t, 24, got.Offered)
	assert.Equal(t, 16, got.Admitted)
	assert.Equal(t, map[string]int{"node-1": 8, "node-2": 8}, got.ByNode)
	assert.Equal(t, map[string]int{"local": 8, "remote": 8}, got.ByOrigin)
	assert.Equal(t, 8.0, d.recorder.judges["alice"].Admitted())
	assert.Zero(t, d.recorder.failed)
}

func TestKilledNodeIsDroppedAndItsCallsAreCutOff(t *testing.T) {
	d := newTestDriver(t)
	dead := fakeNode(t, "node-1", disconnect)
	dead.fate.Store(ending)
	d.add(dead)
	d.add(fakeNode(t, "node-2", respond(http.StatusOK, takeAnswer{true, "local"})))
	for range 10 {
		d.request("alice")
	}
	assert.Equal(t, 1, d.recorder.cutOff)
	assert.Zero(t, d.recorder.failed)
	assert.Equal(t, 9, d.recorder.sample().Admitted)
}

func TestOtherFailuresCount(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"disconnected": disconnect,
		"refused": func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "node closed", http.StatusServiceUnavailable)
		},
		"not JSON":              func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("yes")) },
		"denied with status OK": respond(http.StatusOK, takeAnswer{false, "local"}),
	} {
		t.Run(name, func(t *testing.T) {
			d := newTestDriver(t)
			d.add(fakeNode(t, "node-1", handler))
			d.request("alice")
			d.request("alice")
			assert.Equal(t, 2, d.recorder.failed)
			assert.Len(t, d.recorder.failures, 2)
			assert.Zero(t, d.recorder.sample().Admitted)
		})
	}
}

func TestDropWaitsForRequestsInFlight(t *testing.T) {
	d := newTestDriver(t)
	arrived, release := make(chan struct{}), make(chan struct{})
	p := fakeNode(t, "node-1", func(w http.ResponseWriter, _ *http.Request) {
		close(arrived)
		<-release
		answer(w, http.StatusOK, takeAnswer{true, "local"})
	})
	d.add(p)
	var running sync.WaitGroup
	running.Go(func() { d.request("alice") })
	<-arrived

	dropped := make(chan int)
	go func() {
		d.drop(p)
		dropped <- d.recorder.sample().Admitted
	}()
	require.Eventually(t, func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return len(d.targets) == 0
	}, time.Minute, time.Millisecond)
	assert.Nil(t, d.next("alice"))
	select {
	case <-dropped:
		t.Fatal("a request is still in flight")
	default:
	}
	close(release)
	<-dropped
	running.Wait()
	assert.Equal(t, 1, d.recorder.calls)
}

// An orderly end of a node must not wait for connections that the driver holds.
func TestDropClosesConnections(t *testing.T) {
	server := httptest.NewUnstartedServer(respond(http.StatusOK, takeAnswer{true, "local"}))
	closed := make(chan struct{})
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateClosed {
			close(closed)
		}
	}
	server.Start()
	defer server.Close()
	p := &process{name: "node-1", info: nodeReady{HTTP: server.URL}}

	d := newTestDriver(t)
	d.add(p)
	d.request("alice")
	d.drop(p)
	<-closed
}

// The pace is kept in virtual time, and a long pause is not made up for.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := new(clock)
		c.start()
		d := newDriver(c, newRecorder(peerlimit.PerSecond(10).WithBurst(10)), 100)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		jobs := make(chan string, workers)
		go func() {
			d.generate(ctx, jobs)
			close(jobs)
		}()
		sent := make(map[string]int)
		for key := range jobs {
			sent[key]++
		}
		for _, demand := range demands {
			assert.InDelta(t, 10*100*demand.times, sent[demand.key], 5)
		}
	})
}

func TestReportsSurviveTheWire(t *testing.T) {
	sent := nodeReport{View: &ringView{Version: 3, Size: 1, Members: []string{"node-1"}, Owners: map[string]string{"alice": "node-1"}}}
	line, err := json.Marshal(sent)
	require.NoError(t, err)
	var got nodeReport
	require.NoError(t, json.Unmarshal(line, &got))
	assert.Equal(t, sent, got)
	assert.Equal(t, "node-12", shortName("node-12-0a1b2c3d"))
}
