//go:build unix

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// crew is the processes of the test, and what came of the requests that were sent to them.
type crew struct {
	t      *testing.T
	began  time.Time    // what is told is told relative to it
	fresh  *http.Client // makes a connection for each request: it is refused, or there will be an answer
	steady *http.Client // keeps connections, for many requests while nobody leaves
	name   string       // of the cluster

	mu       sync.Mutex     // guards what follows, and the members' fields
	members  []*crewMember  // all that were ever started, in order
	admitted map[string]int // of each key, all in all
	again    map[string]int // of each key, in this phase and above its limit
	failures []string       // requests that were answered by neither 200 nor 429
	story    []string       // what was done, and when
	answers  map[string]int // how many there were, by status and origin
}

// crewMember is a process and the last it has told.
type crewMember struct {
	*process
	told   []string // its last reports
	size   int      // of its ring
	doomed bool     // it was told to leave, or killed, so that a connection may be refused
	gone   bool     // it has refused one, and gets no more requests
}

// maxTold is how many lines of what a process has told are kept.
const maxTold = 40

func newCrew(t *testing.T) *crew {
	c := &crew{
		t: t, began: time.Now(), name: fmt.Sprintf("peerlimit-rolling-%d", os.Getpid()),
		fresh:    &http.Client{Timeout: callTimeout, Transport: &http.Transport{DisableKeepAlives: true}},
		steady:   &http.Client{Timeout: callTimeout, Transport: &http.Transport{}},
		admitted: make(map[string]int), again: make(map[string]int), answers: make(map[string]int),
	}
	t.Cleanup(func() {
		for _, m := range c.all() {
			m.stop()
		}
		c.tell()
	})
	return c
}

// all returns all processes that were ever started.
func (c *crew) all() []*crewMember {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.members)
}

// running returns the processes that nothing was done to.
func (c *crew) running() []*crewMember {
	return slices.DeleteFunc(c.all(), func(m *crewMember) bool { return m.fate.Load() != alive })
}

// tell prints what happened, and the last words of all processes when the test has failed.
func (c *crew) tell() {
	c.note("the end")
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t.Log("phases:\n" + strings.Join(c.story, "\n"))
	if !c.t.Failed() {
		return
	}
	for _, m := range c.members {
		c.t.Logf("%s, process %d, HTTP %s, gossip %s:\n%s\nlog:\n%s", m.name, m.cmd.Process.Pid, m.info.HTTP, m.info.Gossip,
			strings.Join(m.told, "\n"), &m.log)
	}
}

// note adds to the story.
func (c *crew) note(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.story = append(c.story, fmt.Sprintf("%6.2f s  %s; answers %v", time.Since(c.began).Seconds(), fmt.Sprintf(format, args...), c.answers))
}

// phase counts keys that admit too early from zero.
func (c *crew) phase(what string) {
	c.note("%s", what)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.again = make(map[string]int)
}

// start adds a process and returns when it serves.
func (c *crew) start() *crewMember {
	config := nodeConfig{
		Cluster: c.name, Name: nodeName(len(c.all())), Rate: rollingBurst / rollingHours.Seconds(), Burst: rollingBurst,
	}
	for _, m := range c.running() {
		config.Seeds = append(config.Seeds, m.info.Gossip)
	}
	m := new(crewMember)
	p, err := startProcess(config, func(_ *process, r nodeReport) { c.hear(m, r) }, func(*process) {})
	require.NoError(c.t, err)
	m.process = p
	select {
	case <-p.ready:
	case <-p.ended:
		require.NoError(c.t, p.failure())
	case <-time.After(startTimeout):
		p.stop()
		require.Fail(c.t, "a process does not serve", "%s: %s", p.name, &p.log)
	}
	c.mu.Lock()
	c.members = append(c.members, m)
	c.mu.Unlock()
	c.note("started %s, process %d, HTTP %s, gossip %s", m.name, p.cmd.Process.Pid, p.info.HTTP, p.info.Gossip)
	return m
}

// hear keeps the last reports of a process.
func (c *crew) hear(m *crewMember, r nodeReport) {
	c.mu.Lock()
	defer c.mu.Unlock()
	text := ""
	if r.View != nil {
		m.size = r.View.Size
		text = fmt.Sprintf("ring of %s", list(r.View.Members))
	} else {
		text = fmt.Sprintf("%s %s %s", r.Event.Kind, r.Event.Member, r.Event.Detail)
	}
	m.told = append(m.told, fmt.Sprintf("%6.2f s  %s", time.Since(c.began).Seconds(), text))
	if over := len(m.told) - maxTold; over > 0 {
		m.told = slices.Delete(m.told, 0, over)
	}
}

// awaitMembers returns when every running process reaches that many members and has a ring of no others.
func (c *crew) awaitMembers(n int) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), startTimeout)
	defer cancel()
	for _, m := range c.running() {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s/ready?members=%d", m.info.HTTP, n), nil)
		require.NoError(c.t, err)
		response, err := c.fresh.Do(request)
		require.NoError(c.t, err, "%s is not ready", m.name)
		response.Body.Close()
		require.Equal(c.t, http.StatusNoContent, response.StatusCode, "%s is not ready", m.name)
	}
	require.Eventually(c.t, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return !slices.ContainsFunc(c.members, func(m *crewMember) bool { return m.fate.Load() == alive && m.size != n })
	}, startTimeout, 10*time.Millisecond, "not all processes see %d members", n)
	c.note("all see %d members", n)
}

// retire does what a deployment does: SIGTERM. The process goes on getting requests until it refuses them.
func (c *crew) retire(m *crewMember) {
	c.t.Helper()
	c.doom(m)
	require.NoError(c.t, m.askToLeave())
	select {
	case <-m.ended:
	case <-time.After(startTimeout):
		require.Fail(c.t, "a process does not leave", m.name)
	}
	require.NoError(c.t, m.failure())
	c.note("%s has left", m.name)
}

// crash kills a process.
func (c *crew) crash(m *crewMember) {
	c.doom(m)
	require.NoError(c.t, m.kill())
	c.note("%s was killed", m.name)
}

func (c *crew) doom(m *crewMember) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m.doomed = true
}

func rollingKey(i int) string { return fmt.Sprintf("customer-%d", i) }

// exhaust takes from every key, at all processes in turn, until each has denied it.
func (c *crew) exhaust() {
	defer c.steady.CloseIdleConnections()
	for i := range rollingKeys {
		for turn := range rollingBurst + len(c.all()) {
			c.take(c.steady, rollingKey(i), turn)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range rollingKeys {
		require.Equal(c.t, rollingBurst, c.admitted[rollingKey(i)], rollingKey(i))
	}
}

// sweep asks every process for every key.
func (c *crew) sweep() {
	defer c.steady.CloseIdleConnections() // one that is left open when its process ends would fail a later request
	for i := range rollingKeys {
		for turn := range c.running() {
			c.take(c.steady, rollingKey(i), turn)
		}
	}
}

// sendTraffic asks for one key after the other, at all processes in turn, until what it returns is called.
func (c *crew) sendTraffic() (end func()) {
	halt := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		ticker := time.NewTicker(5 * time.Millisecond)
		defer ticker.Stop()
		for i := 0; ; i++ {
			select {
			case <-ticker.C:
				c.take(c.fresh, rollingKey(i%rollingKeys), i)
			case <-halt:
				return
			}
		}
	})
	end = sync.OnceFunc(func() {
		close(halt)
		running.Wait()
	})
	c.t.Cleanup(end)
	return end
}

// take asks for one token of a key and notes the answer. Another process is asked only when one that is going does not
// accept the connection.
func (c *crew) take(client *http.Client, key string, turn int) {
	for {
		m := c.at(turn)
		admitted, err := c.ask(client, m, key)
		if err != nil && c.isRefusal(m, err) {
			continue
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if err != nil {
			c.failures = append(c.failures, fmt.Sprintf("%.2f s: %s at %s: %v", time.Since(c.began).Seconds(), key, m.name, err))
			return
		}
		if admitted {
			c.admitted[key]++
			if c.admitted[key] > rollingBurst {
				c.again[key]++
			}
		}
		return
	}
}

// at returns the process whose turn it is.
func (c *crew) at(turn int) *crewMember {
	all := slices.DeleteFunc(c.all(), func(m *crewMember) bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return m.gone
	})
	return all[turn%len(all)]
}

// isRefusal reports whether a process that was told to go, or killed, has not taken the connection, and then asks it no
// more. One that is reset waited to be accepted when the process stopped accepting, or was cut by the kill.
func (c *crew) isRefusal(m *crewMember, err error) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	refused := errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
	if m.fate.Load() == ending { // killed in the middle of an answer
		refused = refused || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
	}
	if !m.doomed || !refused {
		return false
	}
	m.gone = true
	c.answers["refused"]++
	return true
}

// ask makes one HTTP request.
func (c *crew) ask(client *http.Client, m *crewMember, key string) (admitted bool, err error) {
	response, err := client.Post(m.info.HTTP+"/take?key="+url.QueryEscape(key), "", nil)
	if err != nil {
		return false, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return false, err
	}
	if response.StatusCode != http.StatusOK && response.StatusCode != http.StatusTooManyRequests {
		return false, fmt.Errorf("status %s: %s", response.Status, bytes.TrimSpace(body))
	}
	var answer takeAnswer
	if err := json.Unmarshal(body, &answer); err != nil {
		return false, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answers[fmt.Sprintf("%d %s", response.StatusCode, answer.Origin)]++
	return answer.Allowed, nil
}

// early returns what keys admitted above their limit in this phase.
func (c *crew) early() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.again) // the traffic goes on
}

// takeFailures returns the requests that were answered by neither 200 nor 429 since it was last called.
func (c *crew) takeFailures() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	failures := c.failures
	c.failures = nil
	return failures
}
